"""Shared by the resources of /v1: the caller and its scopes, conditions of changes, cursors, and errors."""

import binascii
import hashlib
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from http import HTTPStatus
from threading import Lock
from typing import Annotated, Any, NamedTuple, overload

import structlog
from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.responses import JSONResponse
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from consumer.api.guard import TOKEN
from consumer.api.problems import CONTENT_TYPE, TITLES, Mistake, Refused, invalid, pointer
from consumer.api.tokens import Caller, Scope, TokenFile
from consumer.database.engine import unavailable
from consumer.errors import (
    DatabaseUnavailable,
    InvalidPosition,
    InvalidReplay,
    InvalidSubscription,
    KafkaUnavailable,
    SettingsError,
)
from consumer.events.attempt import Attempt
from consumer.events.cloud_event import rfc3339
from consumer.events.event import Event
from consumer.events.times import in_calendar
from consumer.http.urls import without_addresses
from consumer.ledger.search import Page, search
from consumer.ledger.search import Query as SearchQuery
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Registry
from consumer.ops.overview import Overview
from consumer.ops.ping import Ping
from consumer.ops.replay_request import Log
from consumer.ops.verification import Ask
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.repository import Subscribed

log = structlog.get_logger(__name__)

_EVERYWHERE = (400, 401, 403, 408, 413, 415, 422, 500, 503)  # statuses that any route may answer with
_MEANING = {
    400: TITLES["bad-request"],
    401: TITLES["unauthorized"],
    403: "The token does not allow this",
    404: TITLES["not-found"],
    408: TITLES["too-slow"],
    409: TITLES["conflict"],
    412: TITLES["stale"],
    413: TITLES["too-large"],
    415: TITLES["unsupported-media-type"],
    422: TITLES["invalid"],
    500: TITLES["failed"],
    503: TITLES["unavailable"],
}
TRANSLATED = (
    InvalidSubscription,
    InvalidReplay,
    SettingsError,
    KafkaUnavailable,
    DatabaseUnavailable,
    SQLAlchemyError,
)
RETRY_AFTER = {"retry-after": "5"}  # seconds
OF_TENANT = 2  # places that requests of one tenant may take: with many tenants, none has all of them


class Places:
    """Places for requests that hold one of the 40 threads for long. Used by any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str | None] = Counter()  # by tenant
        self._lock = Lock()

    @contextmanager
    def taken(self, caller: Caller, why: str) -> Iterator[None]:
        """Take a place; Refused with `why` if there is none for the caller."""
        tenant, taken = caller.tenant, self._taken
        with self._lock:
            if taken.total() >= self._most or (tenant is not None and taken[tenant] >= OF_TENANT):
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "conflict", why, headers=RETRY_AFTER)
            taken[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                taken[tenant] -= 1


_EXCHANGES, _READS = Places(8), Places(4)  # under way in this process, for up to minutes, and up to 10 s


class Backing(NamedTuple):
    """The parts that the resources work with.

    The rules of `registry` must not wait, since they are applied in a transaction; `refusal`, which judges a new URL
    before it, may wait. `ping` sends a test event; None: there is no WEBHOOK_SECRET to sign it with. `ask` makes a
    validation request; None: there is no WEBHOOK_ORIGIN, or no WEBHOOK_SECRET. `history` None: there is no attempts
    topic. `look` takes the overview. `log` is the log that replays read; None: this process has no settings for Kafka.
    `clock` gives unix seconds, for the age of idempotency keys. `tokens` seal cursors.
    """

    registry: Registry
    refusal: Callable[[str], str | None] = lambda _: None
    ping: Callable[[Endpoint, Event], Ping] | None = None
    history: AttemptHistory | None = None
    look: Callable[[], Overview] | None = None
    log: Log | None = None
    clock: Callable[[], float] = time.time
    ask: Ask | None = None
    tokens: TokenFile = TokenFile(None)


def backing_of(request: Request) -> Backing:
    """The application's Backing."""
    backing: Backing = request.app.state.backing
    return backing


def _needs(scope: Scope) -> Any:
    """A route's parameter: the caller, who has the scope. /openapi.json names it."""

    def caller_of(request: Request, _: Annotated[object, Depends(TOKEN)]) -> Caller:
        caller: Caller = request.state.caller
        if scope not in caller.scopes:
            raise Refused(HTTPStatus.FORBIDDEN, "scope", f"the token needs the scope {scope}")
        return caller

    return Security(caller_of, scopes=[scope])


Backed = Annotated[Backing, Depends(backing_of)]
Reader = Annotated[Caller, _needs("read")]
Writer = Annotated[Caller, _needs("write")]
Keeper = Annotated[Caller, _needs("secrets")]
SubscriptionId = Annotated[int, Path(ge=-(2**63), lt=2**63, description="Id of a subscription.", examples=[7])]
At = Annotated[str | None, Query(description="RFC 3339.", examples=["2026-07-28T14:00:00Z"], max_length=40)]
IfMatch = Annotated[
    str | None,
    Header(description="Change only a subscription with this ETag.", examples=['"2f1c5f0e8a7d4b36"'], max_length=1000),
]


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route, for OpenAPI: these problems, and the ones that every route may return."""
    return {
        status: {
            "description": _MEANING.get(status) or HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def absent() -> Refused:
    """The problem of an id that the caller's tenant does not have, whether or not another tenant has it."""
    return Refused(HTTPStatus.NOT_FOUND, "not-found", "there is no such subscription")


def may_see(caller: Caller, item: Subscribed) -> bool:
    """Whether a subscription belongs to the caller's tenant."""
    return caller.tenant is None or item.tenant == caller.tenant


def seeing(caller: Caller) -> Callable[[Attempt], bool]:
    """Whether the caller may see an attempt: its subscription may have had another tenant then."""
    return lambda attempt: caller.tenant is None or attempt.tenant == caller.tenant


def condition(caller: Caller, if_match: str | None = None) -> Callable[[Subscribed], None]:
    """Raises Refused for a subscription of another tenant, or one whose ETag is not in `if_match`."""

    def check(item: Subscribed) -> None:
        if not may_see(caller, item):
            raise absent()
        if if_match is not None and if_match.strip() != "*":
            tag = etag(item)
            if tag not in {each.strip() for each in if_match.split(",")}:
                why = "it has changed since it was read; read it again"
                raise Refused(HTTPStatus.PRECONDITION_FAILED, "stale", why, headers={"etag": tag})

    return check


def etag(item: Subscribed) -> str:
    """Changes when people change a subscription, and not when workers write into its row."""
    secret = (item.secrets, item.credentials, item.tls)
    parts = (item.id, item.options, item.enabled, item.disabled_reason, *secret, item.verified)
    return f'"{hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]}"'


def check_tenant(caller: Caller, tenant: str | None) -> None:
    """Raise Refused if the caller may not give a subscription this tenant."""
    if caller.tenant is not None and tenant != caller.tenant:
        why = "the token may only subscribe to the events of its own tenant"
        raise Refused(HTTPStatus.FORBIDDEN, "tenant", why, errors=[Mistake(pointer="/tenant", detail=why)])


def told(caller: Caller, described: Mapping[str, Any], *texts: str) -> dict[str, Any]:
    """The description of an exchange. A tenant's token gets these `texts` without the addresses that names have here.

    The addresses may show what the deployment's own network looks like.
    """
    hidden = {} if caller.tenant is None else {each: described[each] for each in texts if described[each] is not None}
    return {**described, **{each: without_addresses(text) for each, text in hidden.items()}}


def check_url(caller: Caller, refusal: Callable[[str], str | None], url: object) -> None:
    """Raise InvalidSubscription if a Backing's `refusal` refuses the URL. An invalid URL is refused elsewhere."""
    if isinstance(url, str):
        try:
            refused = refusal(url)
        except ValueError:
            return
        if refused is not None:
            raise InvalidSubscription(told(caller, {"why": refused}, "why")["why"], "url")


def exchanging(caller: Caller) -> AbstractContextManager[None]:
    """A context for a request to a receiver. Raises Refused if as many as allowed are under way."""
    return _EXCHANGES.taken(caller, "too many requests to receivers are under way; try again")


def reading_back(caller: Caller) -> AbstractContextManager[None]:
    """A context for reading the attempts topic. Raises Refused if as many as allowed are under way."""
    return _READS.taken(caller, "too many requests read older attempts; try again")


def of_all_tenants(caller: Caller) -> None:
    """Raise Refused for a token of one tenant, at a resource about all of them."""
    if caller.tenant is not None:
        raise Refused(HTTPStatus.FORBIDDEN, "tenant", "this resource covers all tenants; the token is for one")


def moment(text: str | None, parameter: str) -> float | None:
    """Unix seconds, at least 0, of a query's RFC 3339 time. Raises Refused for another text, also without an offset."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return in_calendar(max(0.0, found.timestamp()))
    except (ValueError, OverflowError):
        pass
    raise invalid(Mistake(parameter=parameter, detail="is no RFC 3339 time, such as 2026-07-28T14:00:00Z"))


@overload
def iso(at: float) -> str: ...
@overload
def iso(at: None) -> None: ...
def iso(at: float | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC."""
    return None if at is None else rfc3339(at)


def cursor_after(last: int) -> str:
    """The cursor of the page after the row of this id."""
    return urlsafe_b64encode(f"after:{last}".encode()).decode().rstrip("=")


def parse_cursor(cursor: str | None) -> int | None:
    """The id that a page begins after; None for the first page. Raises Refused for an invalid cursor."""
    if cursor is None:
        return None
    try:
        word, _, number = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").partition(":")
        last = int(number)
    except (ValueError, binascii.Error):
        word, last = "", 0
    if word != "after" or not -(2**63) <= last < 2**63:
        raise invalid(Mistake(parameter="cursor", detail="is not a cursor of this resource; leave it out to begin"))
    return last


def search_sealed(tokens: TokenFile, engine: Engine, query: SearchQuery, limit: int, cursor: str | None) -> Page:
    """A page of `search`, whose position is sealed: it has ids of all tenants' rows, which tell how many there are.

    Raises InvalidPosition, as `search` does.
    """
    try:
        position = None if cursor is None else tokens.opened(cursor)
    except ValueError:
        raise InvalidPosition("the position is none that a page has given; begin without one") from None
    found = search(engine, query, limit, position)
    return found._replace(position=None if found.position is None else tokens.sealed(found.position))


def translated(error: Exception) -> Refused:
    """The problem document for an error of the rooms below."""
    match error:
        case InvalidSubscription():
            example = f"; for example {error.example}" if error.example else ""
            place = pointer(error.option) if error.option else ""
            return invalid(Mistake(pointer=place, detail=f"{error.why}{example}"))
        case InvalidReplay():
            place = pointer(error.option) if error.index is None else pointer(error.option, error.index)
            return invalid(Mistake(pointer=place, detail=error.why))
        case SettingsError():
            return Refused(HTTPStatus.CONFLICT, "conflict", str(error))
        case KafkaUnavailable():
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", str(error), headers=RETRY_AFTER)
    reason = unavailable(error)
    log.error("a request failed in the database", reason=str(reason or type(error).__name__), exc_info=error)
    if reason is None:
        return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", headers=RETRY_AFTER)


def answer(content: object) -> JSONResponse:
    """A response of JSON; the server keeps it out of caches."""
    return JSONResponse(content)
