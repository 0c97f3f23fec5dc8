"""/v1/subscriptions."""

import json
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field
from typing_extensions import TypeAliasType

from consumer.api.backing import Backing, changing_many, check_move, of_all_tenants
from consumer.api.context import (
    CREATED_HEADERS,
    Answer,
    Backed,
    Body,
    Changing,
    Cursor,
    IdempotencyKey,
    Limit,
    Reader,
    SubscriptionId,
    Writer,
    answer,
    etag,
    gone,
    once,
    paged,
)
from consumer.api.models import (
    CreatedSubscription,
    NewSubscription,
    Subscription,
    SubscriptionDetail,
    SubscriptionPage,
    SubscriptionPatch,
    TestEvent,
    TestExchange,
    Verification,
    VerificationRequest,
    check_spelling,
    merged,
    shown,
    shown_to,
    stored_options,
)
from consumer.api.problems import Code, Mistake, RequestRefused, invalid
from consumer.api.tokens import Caller
from consumer.crypto.keys import generate, receiver_key
from consumer.errors import Conflict, NotFound, SettingsError, Unavailable, WebhooksError
from consumer.ledger.request_keys import Creation, RequestDigests
from consumer.ops.bulk import Action, Result, act_on_all
from consumer.ops.ping import ping_event
from consumer.ops.replay_request import soon
from consumer.ops.start import Places, places, since
from consumer.subscriptions import repository, secrets
from consumer.subscriptions.endpoint_row import NEEDS_ITS_OWN
from consumer.subscriptions.options import completed
from consumer.subscriptions.repository import State
from consumer.subscriptions.subscribed import Subscribed
from models.subscription import REASON_LENGTH

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])

_TAGGED = {"headers": {"ETag": {"description": "Its version, for If-Match.", "schema": {"type": "string"}}}}
_CREATED: dict[int | str, dict[str, Any]] = {201: {"headers": _TAGGED["headers"] | CREATED_HEADERS}}
_OK: dict[int | str, dict[str, Any]] = {200: _TAGGED}

MOST_CHANGED = 100  # subscriptions of a request
BulkAction = TypeAliasType("BulkAction", Action)
BulkResult = TypeAliasType("BulkResult", Result)


class BulkChange(Body):
    """An action, and its subscriptions. `enable` keeps a pause.

    `resume` ends a pause that has the same reason or none, or that failures have made; `pause` keeps another one.
    """

    subscription_ids: Annotated[
        list[Annotated[int, Field(ge=-(2**63), lt=2**63)]],
        Field(min_length=1, max_length=MOST_CHANGED, examples=[[7, 8]]),
    ]
    action: Annotated[BulkAction, Field(examples=["pause"])]
    reason: Annotated[
        str | None,
        Field(max_length=REASON_LENGTH, description="Why: to pause, to disable, or of the pauses to end."),
    ] = None
    if_owed: Annotated[
        Literal["refuse", "exhaust"],
        Field(description="To remove: refuse it if deliveries are owed, or give them up within a minute."),
    ] = "refuse"


class BulkOutcome(Answer):
    """What has become of a subscription. `failed` may succeed later, `refused` not."""

    subscription_id: int
    result: Annotated[BulkResult, Field(examples=["done"])]
    why: Annotated[str | None, Field(description="Why it is not done.", examples=[None])]


class BulkOutcomes(Answer):
    """The outcome for each subscription, in the order of the request."""

    items: list[BulkOutcome]


@router.get("", response_model=SubscriptionPage)
def list_subscriptions(
    caller: Reader,
    backing: Backed,
    event_type: Annotated[
        str | None,
        Query(description="Only with exactly this type or pattern.", examples=["order.**"], max_length=255),
    ] = None,
    tenant: Annotated[
        str | None, Query(description="Only of exactly this tenant.", examples=["acme"], max_length=255)
    ] = None,
    state: Annotated[
        State | None, Query(description="enabled: not paused either. failing: enabled, and no attempt succeeds.")
    ] = None,
    url: Annotated[
        str | None,
        Query(description="Only with this text in their URL.", examples=["example.com"], min_length=1, max_length=200),
    ] = None,
    name: Annotated[
        str | None,
        Query(description="Only with this text in their name.", examples=["warehouse"], min_length=1, max_length=200),
    ] = None,
    external_id: Annotated[
        str | None, Query(description="Only with this external id.", examples=["crm-4711"], max_length=255)
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List subscriptions by id, a page at a time."""
    found: tuple[Subscribed, ...] = ()
    if caller.tenant is None or tenant in {None, caller.tenant}:
        where = backing.deployment
        found = repository.page(
            where.engine,
            where.vault,
            after=backing.position("subscriptions", cursor, int),
            limit=limit + 1,
            event_type=event_type,
            tenant=caller.tenant or tenant,
            state=state,
            url=url,
            name=name,
            external_id=external_id,
            rules=where.rules,
        )
    return answer(paged(backing, "subscriptions", [shown(caller, each) for each in found], limit, itemgetter("id")))


@router.post("", status_code=HTTPStatus.CREATED, response_model=CreatedSubscription, responses=_CREATED)
def create_subscription(caller: Writer, backing: Backed, new: NewSubscription, key: IdempotencyKey = None) -> Response:
    """Subscribe a URL to events. Only this answer, and its repetitions, show a generated secret's key.

    With `verify` it is enabled only if its receiver agrees; it is created in any case. A repetition does not ask again.
    """
    return once(
        backing.deployment.engine,
        key,
        lambda: _create(caller, backing, new, key),
        lambda creation: _created_before(caller, backing, new, creation),
    )


def _create(caller: Caller, backing: Backing, new: NewSubscription, key: RequestDigests | None) -> Response:
    options = stored_options(
        new.model_dump(exclude_unset=True, exclude={"secrets", "generate_secret", "verify", "start"})
    )
    if caller.tenant is not None:
        options.setdefault("tenant", caller.tenant)
    _check_tenant(caller, options.get("tenant"))
    generated = None if new.generate_secret is None else generate(new.generate_secret)
    own = [(each.kind, each.secret) for each in new.secrets] + ([("signing", generated)] if generated else [])
    if backing.deployment.rules.own_secret and all(kind != "signing" for kind, _ in own):
        why = f"{NEEDS_ITS_OWN}: set generate_secret to hmac"
        raise invalid(why, "generate_secret")
    backing.check_url(caller, new.url)
    check_spelling(options)
    options["event_type"], *further = options.pop("event_types", None) or [options.get("event_type")]
    changes = backing.changes(caller)
    first = None if new.start is None else _first(caller, backing, new.start, options)
    add = partial(changes.add, new_secrets=own, key=key, first=first, further_types=further, **options)
    if not new.verify:
        return _created(caller, add(), generated)
    with backing.verifying(caller) as verify:  # before anything is created
        added = add(disabled=repository.AWAITS_VERIFICATION)
        permission, item = verify(changes, added.id)
    return _created(caller, item, generated, verification=permission)


def _first(caller: Caller, backing: Backing, text: str, options: Mapping[str, Any]) -> Places:
    """The places where a subscription with these options (as stored) begins. They show the topics of all tenants."""
    of_all_tenants(caller)
    values = completed(options)
    log, at = backing.replayed(), since(text, backing.deployment.clock(), None)
    try:
        return soon(log, lambda reader: places(reader, log.topics, values["topics"], at))
    except (SettingsError, Unavailable):
        raise
    except WebhooksError as error:
        raise Conflict(str(error)) from None


def _created_before(caller: Caller, backing: Backing, new: NewSubscription, creation: Creation) -> Response:
    """The same answer for the subscription as it is now."""
    where = backing.deployment
    try:
        found = where.subscription(creation.resource_id, caller.tenant)
    except NotFound:
        raise gone("subscription") from None
    generated = None
    if new.generate_secret is not None:
        given = {each.secret for each in new.secrets}
        # Only the secret that this request has made: a later one needs a token with the scope secrets.
        made = secrets.made_at(where.engine, found.id, creation.at, where.vault)
        generated = next((text for text in made if text not in given), None)
    return _created(caller, found, generated)


def _created(caller: Caller, item: Subscribed, generated: str | None, **more: object) -> Response:
    if generated:
        more["receiver_key"] = receiver_key(generated)
    headers = {"etag": etag(item), "location": f"/v1/subscriptions/{item.id}"}
    return answer({**shown_to(caller, item), **more}, HTTPStatus.CREATED, headers)


@router.post("/bulk", response_model=BulkOutcomes)
def change_subscriptions(caller: Writer, backing: Backed, wanted: BulkChange) -> Response:
    """Enable, disable, pause, resume or remove many subscriptions, each by itself: one that fails stops no other.

    A repetition does no harm. After 20 s the rest is `failed`.
    """
    if wanted.reason is not None and wanted.action not in {"pause", "resume", "disable"}:
        raise invalid("is given with the action pause, resume or disable", "reason")
    action = "exhaust" if (wanted.action, wanted.if_owed) == ("remove", "exhaust") else wanted.action
    with changing_many(caller):
        found = act_on_all(backing.changes(caller), action, wanted.subscription_ids, wanted.reason)
        return answer({"items": [each._asdict() for each in found]})


@router.get("/{subscription_id}", response_model=SubscriptionDetail, responses=_OK)
def show_subscription(caller: Reader, backing: Backed, subscription_id: SubscriptionId) -> Response:
    """Show a subscription, without its secrets, and what it is owed from the log while it is paused or behind."""
    where = backing.deployment
    item = where.subscription(subscription_id, caller.tenant)
    parts = [each.as_json(where.clock()) for each in backing.owed(caller, subscription_id)]
    return answer(shown(caller, item) | {"cursors": parts}, headers={"etag": etag(item)})


@router.patch(
    "/{subscription_id}",
    response_model=Subscription,
    responses=_OK,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/SubscriptionPatch"}}},
        }
    },
)
def patch_subscription(
    caller: Writer, backing: Backed, changes: Changing, subscription_id: SubscriptionId, patch: SubscriptionPatch
) -> Response:
    """Change what the JSON merge patch has. Workers apply changes within WEBHOOK_SUBSCRIPTION_CACHE.

    The subscription then has the `state` that the patch names, whatever it was: `enabled` ends a pause, too, and
    `paused` enables a disabled one. A repetition changes nothing: a pause keeps its beginning.
    A `reason` given with `paused` also ends the probes of a subscription that failures have paused.

    If the subscription has credentials or certificates, another host, port or scheme needs the scope `secrets` too:
    they would go there.
    """
    given = patch.model_dump(exclude_unset=True)
    mode, reason = given.pop("state", "unchanged"), given.pop("reason", None)
    if mode is None:
        raise invalid("is enabled, paused or disabled", "state")
    if reason is not None and mode not in {"paused", "disabled"}:
        raise invalid("is given with the state paused or disabled", "reason")
    if "tenant" in given:
        _check_tenant(caller, given["tenant"])
    check_spelling(given)
    backing.check_url(caller, given.get("url"))

    def values(item: Subscribed) -> Mapping[str, Any]:
        if "url" in given:
            check_move(caller, item, given["url"] or "")
        return merged(given, item)

    with changes.together(subscription_id) as one:
        if given or mode == "unchanged":
            item = one.edit(subscription_id, values)
        if mode != "unchanged":
            item = one.set_mode(subscription_id, mode, reason)
    return _one(caller, item)


@router.delete("/{subscription_id}", status_code=HTTPStatus.NO_CONTENT)
def remove_subscription(
    _: Writer,
    changes: Changing,
    subscription_id: SubscriptionId,
    if_owed: Annotated[
        Literal["refuse", "exhaust"],
        Query(description="Refuse to remove it if deliveries are owed (409), or give them up within a minute."),
    ] = "refuse",
) -> Response:
    """Remove a subscription and its secrets."""
    changes.remove(subscription_id, give_up=if_owed == "exhaust")
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/{subscription_id}/ping", response_model=TestExchange)
def ping_subscription(caller: Writer, backing: Backed, subscription_id: SubscriptionId, sent: TestEvent) -> Response:
    """Send a subscription a signed test event, and show the exchange. An operational event names the caller."""
    try:
        data = None if sent.data is None else json.dumps(sent.data, ensure_ascii=False)
        event = ping_event(subscription_id, backing.deployment.clock(), sent.event_type, data)
    except ValueError as error:
        text = "holds text that is not Unicode" if isinstance(error, UnicodeError) else str(error)
        raise invalid(text) from None
    made = backing.send_test_event(caller, subscription_id, event)
    hidden: dict[str, object] = {} if caller.tenant is None else {"addresses": [], "connected": None}
    return answer(TestExchange.model_validate({"subscription_id": subscription_id, **made, **hidden}))


@router.post("/{subscription_id}/verify", response_model=Verification)
def verify_subscription(
    caller: Writer, backing: Backed, changes: Changing, subscription_id: SubscriptionId, wanted: VerificationRequest
) -> Response:
    """Ask a subscription's receiver for its permission, with one OPTIONS request. A refusal changes nothing."""
    with backing.verifying(caller) as verify:
        permission, item = verify(changes, subscription_id, wanted.rate)
    return answer({"verification": permission, "subscription": shown_to(caller, item)})


def _check_tenant(caller: Caller, tenant: str | None) -> None:
    """Raise RequestRefused if the caller may not give a subscription this tenant."""
    if caller.tenant is not None and tenant != caller.tenant:
        why = "the token may only subscribe to the events of its own tenant"
        raise RequestRefused(Code.TENANT, why, errors=[Mistake(pointer="/tenant", detail=why)])


def _one(caller: Caller, item: Subscribed) -> Response:
    return answer(shown_to(caller, item), headers={"etag": etag(item)})
