"""Problem documents (RFC 9457): the form of every error under /v1. None quotes the request, which may hold a secret."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, WithJsonSchema
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars
from typing_extensions import TypeAliasType

from consumer.api.tokens import Caller
from consumer.database.engine import unavailable
from consumer.errors import (
    Conflict,
    DatabaseUnavailable,
    DeliveriesOwed,
    InvalidPosition,
    InvalidReplay,
    InvalidSubscription,
    NotFound,
    SettingsError,
    Unavailable,
)
from consumer.http.server import REQUEST_ID
from consumer.http.urls import without_addresses

log = structlog.get_logger(__name__)

PREFIX = "/v1"
CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = {"retry-after": "5"}  # seconds
_URN = "urn:kafka-webhooks:problem:"
MOST_ERRORS = 20  # described in one problem document


class Code(Enum):
    """The kinds of problems: the status of the answer, and the title."""

    BAD_REQUEST = 400, "The request is malformed"
    UNAUTHORIZED = 401, "A token is required"
    SCOPE = 403, "The token lacks a scope"
    TENANT = 403, "The token is of another tenant"
    UNTRUSTED_ORIGIN = 403, "The request comes from another site"
    NOT_FOUND = 404, "There is no such resource"
    METHOD_NOT_ALLOWED = 405, "The resource has no such method"
    TOO_SLOW = 408, "The request did not arrive in time"
    CONFLICT = 409, "The state of the resource does not allow this"
    STALE = 412, "The resource has changed"
    TOO_LARGE = 413, "The request is too large"
    UNSUPPORTED_MEDIA_TYPE = 415, "The body must be JSON"
    INVALID = 422, "The request has values that cannot work"
    KEY_REUSED = 422, "The idempotency key was used with another request"
    FAILED = 500, "The service failed"
    BUSY = 503, "The service has too much to do"
    UNAVAILABLE = 503, "The database or Kafka does not answer"

    def __init__(self, status: int, title: str) -> None:
        self.status, self.title = status, title

    @property
    def text(self) -> str:
        """Names the kind in a problem document."""
        return self.name.lower()


_CODES = {"type": "string", "enum": [each.text for each in Code]}
ProblemCode = TypeAliasType("ProblemCode", Annotated[str, WithJsonSchema(_CODES)])


class Mistake(BaseModel):
    """A value that cannot work. One of `pointer`, `parameter` and `header` names its place."""

    detail: Annotated[str, Field(description="The mistake, in words.", examples=["is empty"])]
    pointer: Annotated[
        str | None, Field(description="JSON Pointer into the body (RFC 6901).", examples=["/event_type"])
    ] = None
    parameter: Annotated[str | None, Field(description="Name of a query parameter.", examples=["limit"])] = None
    header: Annotated[str | None, Field(description="Name of a header.", examples=["if-match"])] = None


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Field(description="A URN that ends with the code.", examples=[f"{_URN}invalid"])]
    code: Annotated[ProblemCode, Field(description="The kind of problem.", examples=[Code.INVALID.text])]
    title: Annotated[str, Field(examples=[Code.INVALID.title])]
    status: Annotated[int, Field(examples=[422])]
    detail: Annotated[str | None, Field(description="This problem, in words.", examples=[None])] = None
    errors: Annotated[list[Mistake] | None, Field(description="The values that cannot work.")] = None
    request_id: Annotated[
        str | None, Field(description="As in the header x-request-id, and in the log.", examples=["4f1c0d9be2a84c6f"])
    ] = None
    owed: Annotated[int | None, Field(description="Deliveries still owed, counted up to 10,001.", examples=[None])] = (
        None
    )


class RequestRefused(Exception):
    """Ends a request with a problem document, or with a page that shows the text."""

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        *,
        errors: Sequence[Mistake] = (),
        headers: Mapping[str, str] | None = None,
        owed: int | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code, self.detail, self.status = code, detail, code.status
        self.errors, self.headers, self.owed = errors, headers, owed

    def __str__(self) -> str:
        return self.detail or self.code.title


def concerns(path: str) -> bool:
    """Whether errors of this path are problem documents."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def document(refused: RequestRefused) -> JSONResponse:
    """The response that describes the problem."""
    content = Problem(
        type=_URN + refused.code.text,
        code=refused.code.text,
        title=refused.code.title,
        status=refused.status,
        detail=refused.detail,
        errors=list(refused.errors) or None,
        request_id=get_contextvars().get(REQUEST_ID),
        owed=refused.owed,
    )
    return JSONResponse(content.model_dump(exclude_none=True), refused.status, refused.headers, CONTENT_TYPE)


TRANSLATED = (
    NotFound,
    Conflict,
    InvalidSubscription,
    InvalidPosition,
    InvalidReplay,
    SettingsError,
    Unavailable,
    SQLAlchemyError,
)


def problem_of(error: Exception, caller: Caller | None) -> RequestRefused:
    """The problem of an error that a request of a caller raises. Those of the database are logged.

    A tenant's caller is not told where Kafka and other systems are, nor the addresses of names.
    """
    problem = _problem_of(error)
    if caller is not None and caller.tenant is not None and problem.detail is not None:
        problem.detail = None if isinstance(error, Unavailable) else without_addresses(problem.detail)
    return problem


def _problem_of(error: Exception) -> RequestRefused:
    match error:
        case RequestRefused():
            return error
        case HTTPException():  # the framework refuses by itself: no such path, no such method, not JSON
            code = next((each for each in Code if each.status == error.status_code), Code.BAD_REQUEST)
            return RequestRefused(code, headers=error.headers)
        case RequestValidationError():
            return _of_validation(error.errors())
        case DatabaseUnavailable() | SQLAlchemyError():
            reason = unavailable(error)
            log.error("a request failed in the database", reason=str(reason or type(error).__name__), exc_info=error)
            if reason is not None:
                return RequestRefused(Code.UNAVAILABLE, headers=RETRY_AFTER)
    return _of_package(error) or RequestRefused(Code.FAILED)


def _of_package(error: Exception) -> RequestRefused | None:  # noqa: PLR0911 (one for each kind)
    """The problem of an error that a package below raises on purpose."""
    match error:
        case InvalidSubscription():
            return invalid(error.why + (f"; for example {error.example}" if error.example else ""), error.option)
        case InvalidReplay():
            return invalid(error.why, error.option, error.index)
        case InvalidPosition():
            why = "is no cursor that a page of this list has given; leave it out to begin"
            return RequestRefused(Code.INVALID, errors=[Mistake(parameter="cursor", detail=why)])
        case NotFound():  # without its number: another tenant's answer must be the same
            return RequestRefused(Code.NOT_FOUND, f"there is no such {error.what}{error.why}")
        case Conflict() | SettingsError():
            owed = error.owed if isinstance(error, DeliveriesOwed) else None
            return RequestRefused(Code.CONFLICT, str(error), owed=owed)
        case Unavailable():
            return RequestRefused(Code.UNAVAILABLE, str(error), headers=RETRY_AFTER)
    return None


def _of_validation(errors: Sequence[Mapping[str, Any]]) -> RequestRefused:
    """The problem of a request that does not fit its models, from Pydantic's errors, whose texts quote no value."""
    if any(error["type"] == "json_invalid" for error in errors):
        return RequestRefused(Code.BAD_REQUEST, "the body is not JSON")
    if any(error["loc"][0] == "path" for error in errors):
        return RequestRefused(Code.NOT_FOUND)
    return RequestRefused(Code.INVALID, errors=[_mistake(each) for each in errors[:MOST_ERRORS]])


def _mistake(error: Mapping[str, Any]) -> Mistake:
    kind, *place = error["loc"]
    name = pointer(*place) if kind == "body" else str(place[0] if place else kind)
    member = {"body": "pointer", "header": "header"}.get(kind, "parameter")
    return Mistake(detail=error["msg"], **{member: bounded(name)})


def bounded(name: str) -> str:
    """The start of a name in the request, in ASCII."""
    return name[:200].encode("ascii", "backslashreplace").decode()


def invalid(detail: str, *place: object) -> RequestRefused:
    """The problem of a value that cannot work, at this place in the body; None in it is left out."""
    return RequestRefused(Code.INVALID, errors=[Mistake(pointer=pointer(*place), detail=detail)])


def pointer(*parts: object) -> str:
    """The JSON Pointer of a place in the body (RFC 6901)."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts if part is not None)
    return "".join(f"/{part}" for part in escaped)
