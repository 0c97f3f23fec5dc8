"""/v1/audit/deliveries: proves that no delivery of a short time is missing."""

import time
from contextlib import closing
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.backing import Backing, of_all_tenants, reading_log
from consumer.api.context import Answer, At, Backed, Moment, OfSubscription, Reader, TimeText, answer, unix
from consumer.api.problems import Code, Mistake, RequestRefused
from consumer.api.tokens import Caller
from consumer.ops import delivery_audit
from consumer.ops.delivery_audit import audit

router = APIRouter(tags=["audit"])

RECORDS = 100_000  # of an audit for a request
SECONDS = 20.0
_TOO_LONG = "audit a shorter time, or run `kafka-webhooks audit deliveries`, which has no such limit"


class MissingDelivery(Answer):
    """A delivery that nothing is on record of. `at`: when its record was written."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    offset: int
    at: TimeText
    subscription_id: int


class AuditedHour(Answer):
    """matched = delivered + waiting + given_up + covered + changed + missing."""

    topic: Annotated[str, Field(examples=["orders"])]
    hour: Annotated[TimeText, Field(description="Its beginning.", examples=["2026-07-28T14:00:00.000Z"])]
    records: int
    events: int
    matched: Annotated[int, Field(description="Deliveries that the present subscriptions should get.")]
    delivered: int
    waiting: Annotated[int, Field(description="Stored, or their records are not committed yet.")]
    given_up: int
    covered: Annotated[int, Field(description="Owed by a cursor.")]
    changed: Annotated[int, Field(description="Not on record; their subscription was changed after their record.")]
    missing: int


class DeliveryAudit(Answer):
    """What has become of each delivery. `faults`: why deliveries may seem to be missing."""

    hours: list[AuditedHour]
    missing: list[MissingDelivery]
    not_listed: Annotated[int, Field(description="Missing deliveries beyond those of the list.")]
    faults: list[str]


@router.get("/audit/deliveries", response_model=DeliveryAudit)
def audit_deliveries(
    caller: Reader,
    backing: Backed,
    since: Annotated[Moment, Query()],
    until: At = None,
    subscription_id: OfSubscription = None,
    tenant: str | None = None,
) -> Response:
    """Prove that each event was delivered, is still owed, or was given up; the missing deliveries are named.

    For 100,000 records of the log at most; the command has no such limit.
    """
    found = proved(caller, backing, unix(backing, since) or 0.0, unix(backing, until), subscription_id, tenant)
    return answer(DeliveryAudit.model_validate(found.as_json()))


def proved(
    caller: Caller, backing: Backing, since: float, until: float | None, subscription_id: int | None, tenant: str | None
) -> delivery_audit.DeliveryAudit:
    """The audit, for a request. `until` None: now. Raises RequestRefused if it would take long, and as `audit`."""
    of_all_tenants(caller)
    log, end = backing.replayed(), time.monotonic() + SECONDS
    found = delivery_audit.DeliveryAudit()
    last = backing.deployment.clock() if until is None else until
    steps = audit(log, backing.deployment, log.kafka.attempts_topic, since, last, tenant, subscription_id)
    with reading_log(caller), closing(steps):
        for found in steps:
            if found.left > RECORDS or time.monotonic() > end:
                why = f"the log has {found.left:,} records more in this time, too many for a request: {_TOO_LONG}"
                raise RequestRefused(Code.INVALID, errors=[Mistake(parameter="since", detail=why)])
    return found
