"""/v1/subscriptions/{id}/tls: client certificates and authorities. Keys are write-only."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from consumer.api.problems import Mistake, Refused, invalid
from consumer.api.v1.context import Backed, IfMatch, Keeper, SubscriptionId, absent, condition, described
from consumer.api.v1.models import ShownTls
from consumer.crypto.certificates import LARGEST_PEM, TlsIdentity
from consumer.errors import InvalidSubscription
from consumer.ops import changes
from consumer.subscriptions import tls

router = APIRouter(prefix="/subscriptions/{subscription_id}/tls", tags=["secrets"])

_DONE: dict[int | str, dict[str, Any]] = {204: {"description": "Done; the token lacks the scope `read`."}}
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB…\n-----END CERTIFICATE-----\n"
_KEY = "-----BEGIN PRIVATE KEY-----\nMIGH…\n-----END PRIVATE KEY-----\n"


class NewTls(BaseModel):
    """Certificates to use. A part that is null stays as it is."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    certificate: Annotated[
        str | None,
        Field(
            max_length=LARGEST_PEM,
            description="Client certificate, then its intermediates, in PEM; with its key.",
            examples=[_CERTIFICATE],
        ),
    ] = None
    private_key: Annotated[
        str | None,
        Field(
            repr=False,
            max_length=LARGEST_PEM,
            description="Key of the certificate, in PEM, without a pass phrase. It is never shown again.",
            examples=[_KEY],
        ),
    ] = None
    authorities: Annotated[
        str | None,
        Field(
            max_length=LARGEST_PEM,
            description="The only authorities that the receiver's certificate may come from, in PEM.",
            examples=[_CERTIFICATE],
        ),
    ] = None


@router.put(
    "",
    response_model=ShownTls,
    responses=described(404, 412) | _DONE,
)
def set_tls(
    caller: Keeper, backing: Backed, subscription_id: SubscriptionId, new: NewTls, if_match: IfMatch = None
) -> Response:
    """Set the client certificate with its key, the authorities, or both."""
    given = TlsIdentity(new.certificate or None, new.private_key or None, new.authorities or None)
    if given == TlsIdentity():
        raise invalid(Mistake(pointer="", detail="give certificate and private_key, or authorities"))
    try:
        found = changes.set_tls(
            backing.registry, caller.actor, subscription_id, given, datetime.now(UTC), condition(caller, if_match)
        )
    except InvalidSubscription as error:
        raise invalid(Mistake(pointer="", detail=error.why)) from None
    if found is None:
        raise absent()
    if "read" not in caller.scopes:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    assert found.tls is not None, "this transaction has written it"  # noqa: S101 (for mypy, too)
    return JSONResponse(tls.described(found.tls))


@router.delete("", status_code=HTTPStatus.NO_CONTENT, responses=described(404, 412))
def remove_tls(caller: Keeper, backing: Backed, subscription_id: SubscriptionId, if_match: IfMatch = None) -> Response:
    """Remove the client certificate and the authorities."""
    removed = changes.remove_tls(backing.registry, caller.actor, subscription_id, condition(caller, if_match))
    if removed is None:
        raise absent()
    if not removed:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "the subscription has no certificates of its own")
    return Response(status_code=HTTPStatus.NO_CONTENT)
