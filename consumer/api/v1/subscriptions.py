"""/v1/subscriptions."""

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from consumer.api.problems import Mistake, Refused, invalid
from consumer.api.tokens import Caller
from consumer.api.v1.context import (
    Backed,
    Backing,
    IfMatch,
    Reader,
    SubscriptionId,
    Writer,
    absent,
    check_tenant,
    check_url,
    condition,
    cursor_after,
    described,
    etag,
    exchanging,
    may_see,
    parse_cursor,
    told,
)
from consumer.api.v1.idempotency import CREATED_HEADERS, IdempotencyKey, gone, once
from consumer.api.v1.models import (
    Created,
    NewSubscription,
    Nothing,
    Page,
    Patch,
    Reason,
    Shown,
    merged,
    shown,
    shown_to,
    stored_options,
)
from consumer.api.v1.verification import asking
from consumer.crypto.keys import generate, parse_signing_key, receiver_key
from consumer.http.urls import Target, parse_target
from consumer.ledger import counts
from consumer.ledger.request_keys import Creation, RequestDigests
from consumer.ops import changes, verification
from consumer.ops.ping import EVENT_TYPE, describe, ping_event
from consumer.subscriptions import repository, secrets
from consumer.subscriptions.endpoint_row import NEEDS_ITS_OWN
from consumer.subscriptions.repository import State, Subscribed

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])

MOST_COUNTED = 10_000  # deliveries owed; a problem says at most one more
_TAGGED = {"headers": {"ETag": {"description": "Its version, for If-Match.", "schema": {"type": "string"}}}}
_CREATED: dict[int | str, dict[str, Any]] = {201: {"headers": _TAGGED["headers"] | CREATED_HEADERS}}
_OK: dict[int | str, dict[str, Any]] = {200: _TAGGED}


class TestEvent(BaseModel):
    """A test event."""

    __test__ = False  # no test of pytest's
    model_config = ConfigDict(strict=True, extra="forbid")

    event_type: Annotated[str, Field(max_length=255, examples=["order.paid"])] = EVENT_TYPE
    data: Annotated[Any, Field(description="Its body, any JSON. Null: a default one.", examples=[{"amount": 5}])] = None


class Exchange(BaseModel):
    """The exchange of a test event. Secrets are masked, and bodies cut to their start."""

    subscription_id: Annotated[int, Field(examples=[7])]
    event_type: Annotated[str, Field(examples=[EVENT_TYPE])]
    addresses: Annotated[
        list[str], Field(description="Of the name in the URL; not for tenants.", examples=[["93.184.215.14"]])
    ]
    connected: Annotated[
        str | None, Field(description="The address that was connected to; not for tenants.", examples=["93.184.215.14"])
    ]
    tls: Annotated[str | None, Field(description="Version of the protocol.", examples=["TLSv1.3"])]
    certificate: Annotated[dict[str, Any] | None, Field(examples=[None])]
    headers: Annotated[
        dict[str, str],
        Field(description="Of the request.", examples=[{"webhook-id": "msg_143dab3b0a3b75b910a8f2797991ac8e"}]),
    ]
    body: Annotated[str | None, Field(description="Of the request.", examples=['{"amount": 5}'])]
    status: Annotated[int | None, Field(examples=[204])]
    answer: Annotated[str | None, Field(description="Start of the answer's body.", examples=[None])]
    seconds: Annotated[dict[str, float], Field(description="Seconds of each step.", examples=[{"connect": 0.012}])]
    ok: Annotated[bool, Field(description="The receiver took it.", examples=[True])]
    verdict: Annotated[str, Field(examples=["delivered: the receiver took it with status 204"])]
    advice: Annotated[str | None, Field(description="What to do, if it failed.", examples=[None])]


@router.get("", response_model=Page, responses=described())
def list_subscriptions(
    caller: Reader,
    backing: Backed,
    event_type: Annotated[
        str | None, Query(description="Only of exactly this type or pattern.", examples=["order.**"], max_length=255)
    ] = None,
    tenant: Annotated[
        str | None, Query(description="Only of exactly this tenant.", examples=["acme"], max_length=255)
    ] = None,
    state: Annotated[State | None, Query(description="failing: enabled, and no attempt succeeds.")] = None,
    url: Annotated[
        str | None,
        Query(description="Only with this text in their URL.", examples=["example.com"], min_length=1, max_length=200),
    ] = None,
    cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
) -> Response:
    """List subscriptions by id, a page at a time."""
    if caller.tenant is not None and tenant not in {None, caller.tenant}:
        found: tuple[Subscribed, ...] = ()
    else:
        found = repository.page(
            backing.registry.engine,
            backing.registry.vault,
            after=parse_cursor(cursor),
            limit=limit + 1,
            event_type=event_type,
            tenant=caller.tenant or tenant,
            state=state,
            url=url,
            rules=backing.registry.rules,
        )
    page = found[:limit]
    following = cursor_after(page[-1].id) if len(found) > limit else None
    return _json({"items": [shown(item) for item in page], "next": following})


@router.post("", status_code=HTTPStatus.CREATED, response_model=Created, responses=described(409) | _CREATED)
def create_subscription(caller: Writer, backing: Backed, new: NewSubscription, key: IdempotencyKey = None) -> Response:
    """Subscribe a URL to events. Only this answer, and its repetitions, show a generated secret's key.

    With `verify` it is enabled only if its receiver agrees; it is created in any case. A repetition does not ask again.
    """
    create = _create_verified if new.verify else _create
    return once(
        backing.registry.engine,
        key,
        lambda: _created(caller, *create(caller, backing, new, key)),
        lambda creation: _created_before(caller, backing, new, creation),
    )


def _create_verified(
    caller: Caller, backing: Backing, new: NewSubscription, key: RequestDigests | None
) -> tuple[Subscribed, str | None, dict[str, object]]:
    ask = asking(backing)
    with exchanging(caller):
        added, generated, _ = _create(caller, backing, new, key, repository.AWAITS_VERIFICATION)
        done = verification.verify(backing.registry, caller.actor, added.id, ask)
    if done is None:  # removed meanwhile
        raise absent()
    outcome = told(caller, verification.describe(done.permission), "reason", "advice")
    return done.subscription, generated, {"verification": outcome}


def _create(
    caller: Caller, backing: Backing, new: NewSubscription, key: RequestDigests | None, disabled: str | None = None
) -> tuple[Subscribed, str | None, dict[str, object]]:
    """A new subscription, its generated secret, and no further members of the answer."""
    options = stored_options(new.model_dump(exclude_unset=True, exclude={"secrets", "generate_secret", "verify"}))
    if caller.tenant is not None:
        options.setdefault("tenant", caller.tenant)
    check_tenant(caller, options.get("tenant"))
    generated = None if new.generate_secret is None else generate(new.generate_secret)
    own = [(each.kind, each.secret) for each in new.secrets] + ([("signing", generated)] if generated else [])
    if backing.registry.rules.own_secret and all(kind != "signing" for kind, _ in own):
        why = f"{NEEDS_ITS_OWN}: set generate_secret to hmac"
        raise invalid(Mistake(pointer="/generate_secret", detail=why))
    check_url(caller, backing.refusal, new.url)
    added = changes.add(backing.registry, caller.actor, new_secrets=own, key=key, disabled=disabled, **options)
    return added, generated, {}


def _created_before(caller: Caller, backing: Backing, new: NewSubscription, creation: Creation) -> Response:
    """The same answer for the subscription as it is now."""
    registry = backing.registry
    found = repository.get(registry.engine, creation.resource_id, registry.vault, registry.rules)
    if found is None or not may_see(caller, found):
        raise gone("subscription")
    generated = None
    if new.generate_secret is not None:
        given = {each.secret for each in new.secrets}
        # Only the secret that this request has made: a later one needs a token with the scope secrets.
        made = secrets.made_at(registry.engine, found.id, creation.at, registry.vault)
        generated = next((text for text in made if text not in given), None)
    return _created(caller, found, generated, {})


def _created(caller: Caller, item: Subscribed, generated: str | None, more: Mapping[str, object]) -> Response:
    more = {**more, "receiver_key": receiver_key(generated)} if generated else more
    location = {"location": f"/v1/subscriptions/{item.id}"}
    return _json({**shown_to(caller, item), **more}, HTTPStatus.CREATED, {"etag": etag(item), **location})


@router.get("/{subscription_id}", response_model=Shown, responses=described(404) | _OK)
def show_subscription(caller: Reader, backing: Backed, subscription_id: SubscriptionId) -> Response:
    """Show a subscription, without its secrets."""
    registry = backing.registry
    found = repository.get(registry.engine, subscription_id, registry.vault, registry.rules)
    if found is None or not may_see(caller, found):
        raise absent()
    return _one(caller, found)


@router.patch(
    "/{subscription_id}",
    response_model=Shown,
    responses=described(404, 412) | _OK,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/Patch"}}},
        }
    },
)
def patch_subscription(
    caller: Writer, backing: Backed, subscription_id: SubscriptionId, patch: Patch, if_match: IfMatch = None
) -> Response:
    """Change the options that the JSON merge patch has. Workers apply changes within WEBHOOK_SUBSCRIPTION_CACHE.

    If the subscription has credentials or certificates, another host, port or scheme needs the scope `secrets` too:
    they would go there.
    """
    given = patch.model_dump(exclude_unset=True)
    if "tenant" in given:
        check_tenant(caller, given["tenant"])
    check_url(caller, backing.refusal, given.get("url"))
    allowed = condition(caller, if_match)

    def check(item: Subscribed) -> None:
        allowed(item)
        moves = "url" in given and _target(given["url"] or "") != _target(item.url)
        if moves and (item.credentials or item.tls) and "secrets" not in caller.scopes:
            why = "its credentials would go to another server: the token needs the scope secrets"
            raise Refused(HTTPStatus.FORBIDDEN, "scope", why)

    changed = changes.edit(backing.registry, caller.actor, subscription_id, lambda before: merged(given, before), check)
    return _one(caller, changed)


def _target(url: str) -> Target | None:
    try:
        return parse_target(url)
    except ValueError:
        return None


@router.post("/{subscription_id}/enable", response_model=Shown, responses=described(404, 412) | _OK)
def enable_subscription(
    caller: Writer, backing: Backed, subscription_id: SubscriptionId, _: Nothing, if_match: IfMatch = None
) -> Response:
    """Enable a subscription: it gets events again, and its held deliveries are sent."""
    return _switched(
        caller,
        changes.set_enabled(
            backing.registry, caller.actor, subscription_id, True, condition=condition(caller, if_match)
        ),
    )


@router.post("/{subscription_id}/disable", response_model=Shown, responses=described(404, 412) | _OK)
def disable_subscription(
    caller: Writer, backing: Backed, subscription_id: SubscriptionId, why: Reason, if_match: IfMatch = None
) -> Response:
    """Disable a subscription: it matches no event, and its stored deliveries are held."""
    return _switched(
        caller,
        changes.set_enabled(
            backing.registry, caller.actor, subscription_id, False, why.reason, condition(caller, if_match)
        ),
    )


@router.delete("/{subscription_id}", status_code=HTTPStatus.NO_CONTENT, responses=described(404, 409, 412))
def remove_subscription(
    caller: Writer,
    backing: Backed,
    subscription_id: SubscriptionId,
    owed: Annotated[
        Literal["refuse", "exhaust"],
        Query(description="If deliveries are owed: refuse to remove it (409), or give them up within a minute."),
    ] = "refuse",
    if_match: IfMatch = None,
) -> Response:
    """Remove a subscription and its secrets."""
    registry, allowed = backing.registry, condition(caller, if_match)

    def check_owed(connection: Connection) -> None:
        if owed == "refuse":
            (count,) = counts.loads(connection, [subscription_id], MOST_COUNTED + 1).values()
            if count:
                why = "deliveries are stored for it; owed=exhaust gives them up"
                raise Refused(HTTPStatus.CONFLICT, "conflict", why, owed=count)

    if changes.remove(registry, caller.actor, subscription_id, allowed, check_owed) is None:
        raise absent()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/{subscription_id}/ping", response_model=Exchange, responses=described(404, 409))
def ping_subscription(caller: Writer, backing: Backed, subscription_id: SubscriptionId, sent: TestEvent) -> Response:
    """Send a subscription a signed test event, and show the exchange. An operational event names the caller."""
    registry = backing.registry
    if backing.ping is None:
        raise Refused(HTTPStatus.CONFLICT, "conflict", "the API needs WEBHOOK_SECRET, as workers have it")
    try:
        data = None if sent.data is None else json.dumps(sent.data, ensure_ascii=False)
        event = ping_event(subscription_id, time.time(), sent.event_type, data)
    except ValueError as error:
        text = "holds text that is not Unicode" if isinstance(error, UnicodeError) else str(error)
        raise invalid(Mistake(pointer="", detail=text)) from None
    default = tuple(map(parse_signing_key, registry.default))
    found = repository.get_endpoint(registry.engine, subscription_id, default, registry.vault, registry.rules)
    if found is None or not may_see(caller, found[0]):
        raise absent()
    item, endpoint = found
    with exchanging(caller):
        changes.note_ping(registry, caller.actor, item, event.type)
        done = backing.ping(endpoint, event)
    exchange = told(caller, describe(endpoint, done), "verdict", "advice")
    if caller.tenant is not None:
        exchange |= {"addresses": [], "connected": None}
    return _json({"subscription_id": item.id, **exchange})


def _switched(caller: Caller, done: tuple[Subscribed, Subscribed] | None) -> Response:
    return _one(caller, None if done is None else done[1])


def _one(caller: Caller, item: Subscribed | None) -> Response:
    if item is None:
        raise absent()
    return _json(shown_to(caller, item), headers={"etag": etag(item)})


def _json(content: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(json.loads(json.dumps(content, default=str)), status, headers)
