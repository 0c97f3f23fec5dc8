"""Shared by the resources of /v1: the caller and its scopes, parameters, conditions of changes, idempotency keys."""

import hashlib
import json
from base64 import b64encode
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.responses import JSONResponse, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError
from sqlalchemy import Engine

from consumer.api.backing import Backing
from consumer.api.guard import TOKEN
from consumer.api.problems import MOST_ERRORS, PREFIX, RETRY_AFTER, Code, Mistake, RequestRefused, bounded
from consumer.api.tokens import STRANGER, Caller, Scope
from consumer.config.types import moment
from consumer.errors import Conflict, KeyReused, KeyTaken
from consumer.events.cloud_event import rfc3339
from consumer.ledger import request_keys
from consumer.ledger.request_keys import Creation, RequestDigests
from consumer.ops.changes import Changes
from consumer.subscriptions.subscribed import Subscribed

MOST_CURSOR = 3_000  # characters: a position may have an event type, of 255 characters, that is sealed
_TWICE = "is there more than once"


class Body(BaseModel):
    """The body of a request: no member but its own, and of no other type. Errors do not quote it."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Answer(BaseModel):
    """The body of an answer, read from the attributes of a value."""

    model_config = ConfigDict(from_attributes=True)


class Page(Answer):
    """A page of a list: of its `items`, and `next`."""

    next: Annotated[str | None, Field(description="`cursor` of the next page. Null: the end.")]


class EmptyBody(Body):
    """An empty object."""


def backing_of(request: Request) -> Backing:
    """The application's Backing."""
    backing: Backing = request.app.state.backing
    return backing


async def check_query(request: Request) -> None:
    """Raise RequestRefused for a query parameter that the route lacks: it would be ignored; or for a second value."""
    route = request.app.openapi()["paths"][PREFIX + request.scope["route"].path][request.method.lower()]
    parameters = (each for each in route.get("parameters", ()) if each["in"] == "query")
    known = {each["name"]: str(each["schema"].get("anyOf")) for each in parameters}
    unknown = f"is no parameter of this path; it has {', '.join(sorted(known)) or 'none'}"
    given = Counter(name for name, _ in request.query_params.multi_items())
    wrong = {name: unknown for name in given if name not in known}
    wrong |= {name: _TWICE for name in known if given[name] > 1 and "array" not in known[name]}
    if wrong:
        mistakes = [Mistake(parameter=bounded(name), detail=detail) for name, detail in wrong.items()]
        raise RequestRefused(Code.INVALID, errors=mistakes[:MOST_ERRORS])


def _needs(scope: Scope, *others: Caller) -> Any:
    """A route's parameter: the caller, who has the scope or is one of the others. /openapi.json names the scope."""

    def caller_of(request: Request, _: Annotated[object, Depends(TOKEN)]) -> Caller:
        caller: Caller = request.state.caller
        if scope not in caller.scopes and caller not in others:
            raise RequestRefused(Code.SCOPE, f"the token needs the scope {scope}")
        return caller

    return Security(caller_of, scopes=[scope])


def _check_moment(text: str) -> str:
    try:
        moment(text, 0.0, None)
    except ValueError as error:
        raise PydanticCustomError("moment", str(error)) from None
    return text


Backed = Annotated[Backing, Depends(backing_of)]
Reader = Annotated[Caller, _needs("read")]
Receiver = Annotated[Caller, _needs("read", STRANGER)]
Writer = Annotated[Caller, _needs("write")]
Keeper = Annotated[Caller, _needs("secrets")]
SubscriptionId = Annotated[int, Path(ge=-(2**63), lt=2**63, description="Id of a subscription.", examples=[7])]
OfSubscription = Annotated[int | None, Query(ge=-(2**63), lt=2**63, examples=[7])]
Moment = Annotated[
    str,
    AfterValidator(_check_moment),
    Field(
        max_length=40,
        description="RFC 3339 with an offset, or an age such as 2h.",
        examples=["2026-07-28T14:00:00Z"],
    ),
]
At = Annotated[Moment | None, Query()]
Cursor = Annotated[str | None, Query(max_length=MOST_CURSOR, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
IfMatch = Annotated[
    str | None,
    Header(description="Change only a subscription with this ETag.", examples=['"2f1c5f0e8a7d4b36"'], max_length=1000),
]


def _changes(request: Request, backing: Backed, if_match: IfMatch = None) -> Changes:
    """The changes that the caller makes, to a subscription whose ETag is in `if_match`."""

    def check(item: Subscribed) -> None:
        tag = etag(item)
        if if_match is not None and if_match.strip() != "*" and tag not in map(str.strip, if_match.split(",")):
            why = "it has changed since it was read; read it again"
            raise RequestRefused(Code.STALE, why, headers={"etag": tag})

    return backing.changes(request.state.caller, check)


Changing = Annotated[Changes, Depends(_changes)]


def etag(item: Subscribed) -> str:
    """Changes when people change a subscription, and not when workers write into its row."""
    secret = (item.secrets, item.credentials, item.tls)
    state = (item.enabled, item.disabled_reason, item.paused_at, item.paused_reason, item.probed)
    parts = (item.id, item.options, item.event_types, *state, *secret, item.verified)
    return f'"{hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]}"'


def unix(backing: Backing, at: str | None) -> float | None:
    """Unix seconds of a `Moment`, at least 0."""
    return None if at is None else moment(at, backing.deployment.clock(), None)


TimeText = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Stamp = Annotated[TimeText, BeforeValidator(lambda at: None if at is None else rfc3339(at))]  # of unix seconds
Time = Annotated[datetime, PlainSerializer(lambda at: rfc3339(at.timestamp()), TimeText, when_used="json")]


def as_text(value: bytes | None) -> str | None:
    """Bytes as text if they are UTF-8; a character that is cut at their end is left out. Null: see `as_base64`."""
    try:
        return None if value is None else getincrementaldecoder("utf-8")().decode(value)
    except UnicodeDecodeError:
        return None


def as_base64(value: bytes | None) -> str | None:
    """Bytes that are no UTF-8, as base64."""
    return b64encode(value).decode() if value is not None and as_text(value) is None else None


_BASE64 = "Instead, if it is not UTF-8."
Text = Annotated[str | None, BeforeValidator(as_text)]
Base64 = Annotated[str | None, BeforeValidator(as_base64), Field(description=_BASE64, examples=[None])]


def answer(
    content: BaseModel | Mapping[str, object],
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A response of JSON; the server keeps it out of caches."""
    # A row that plain SQL has written may have values of other types.
    body = content.model_dump(mode="json", warnings=False) if isinstance(content, BaseModel) else content
    return JSONResponse(body, status, headers)


def paged(
    backing: Backing, listed: str, found: Sequence[Any], limit: int, position: Callable[[Any], object]
) -> dict[str, Any]:
    """The page of a list of which one item more than `limit` was looked for."""
    items = found[:limit]
    return {"items": items, "next": backing.cursor(listed, position(items[-1])) if len(found) > limit else None}


REPLAYED = "idempotency-replayed"
_NAME = "idempotency-key"
# The headers of a creation, for OpenAPI.
CREATED_HEADERS: dict[str, Any] = {
    "Location": {"description": "Its path.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "An earlier request with this Idempotency-Key has created it; this one has created nothing.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


async def _key_of(
    request: Request,
    backing: Backed,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Any text, such as a UUID, that is the same if the request is sent again: within 24 hours the "
            "same token, path, key and body create nothing twice.",
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
        ),
    ] = None,
) -> RequestDigests | None:
    if idempotency_key is None:
        return None
    if len(request.headers.getlist(_NAME)) > 1:
        raise RequestRefused(Code.INVALID, errors=[Mistake(header=_NAME, detail=_TWICE)])
    caller: Caller = request.state.caller
    # The tenant too: a token's name may be given to another tenant meanwhile.
    whose = (caller.name, caller.tenant, request.scope["path"])
    return request_keys.request_key(idempotency_key, whose, await request.body(), backing.deployment.clock())


IdempotencyKey = Annotated[RequestDigests | None, Depends(_key_of)]


def once(
    engine: Engine,
    key: RequestDigests | None,
    create: Callable[[], Response],
    again: Callable[[Creation], Response],
) -> Response:
    """The answer of `create`, or of `again` if the key has created something before.

    `create` notes the key in its transaction (`request_keys.note`), and lets KeyTaken pass.
    """
    if key is None:
        return create()
    found = _find(engine, key)
    if found is None:
        try:
            return create()
        except KeyTaken:
            found = _find(engine, key)
    if found is None:  # removed meanwhile, by a process whose clock is ahead
        raise RequestRefused(Code.UNAVAILABLE, headers=RETRY_AFTER)
    response = again(found)
    response.headers[REPLAYED] = "true"
    return response


def gone(what: str) -> Conflict:
    """The error of a key whose resource was removed."""
    return Conflict(f"the {what} that this key created was removed; use another key")


def _find(engine: Engine, key: RequestDigests) -> Creation | None:
    try:
        return request_keys.find(engine, key)
    except KeyReused:
        why = "within a day, a key may be repeated with the same body only; use another key"
        mistake = Mistake(header=_NAME, detail="was used with another body before")
        raise RequestRefused(Code.KEY_REUSED, why, errors=[mistake]) from None
