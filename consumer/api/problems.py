"""Problem documents (RFC 9457): the form of every error under /v1. None quotes the request, which may hold a secret."""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from consumer.database.engine import unavailable
from consumer.errors import (
    Conflict,
    DatabaseUnavailable,
    DeliveriesOwed,
    InvalidReplay,
    InvalidSubscription,
    KafkaUnavailable,
    NotFound,
    SettingsError,
)

log = structlog.get_logger(__name__)

PREFIX = "/v1"
CONTENT_TYPE = "application/problem+json"
_URN = "urn:kafka-webhooks:problem:"
RETRY_AFTER = {"retry-after": "5"}  # seconds
_MOST_ERRORS = 20  # described in one problem document

Code = Literal[
    "bad-request",
    "conflict",
    "failed",
    "invalid",
    "key-reused",
    "method-not-allowed",
    "not-found",
    "scope",
    "stale",
    "tenant",
    "too-large",
    "too-slow",
    "unauthorized",
    "unavailable",
    "unsupported-media-type",
    "untrusted-origin",
]
TITLES: Mapping[Code, str] = {
    "bad-request": "The request is malformed",
    "conflict": "The state of the resource does not allow this",
    "failed": "The service failed",
    "invalid": "The request has values that cannot work",
    "key-reused": "The idempotency key was used with another request",
    "method-not-allowed": "The resource has no such method",
    "not-found": "There is no such resource",
    "scope": "The token lacks a scope",
    "stale": "The resource has changed",
    "tenant": "The token is of another tenant",
    "too-large": "The request is too large",
    "too-slow": "The request did not arrive in time",
    "unauthorized": "A token is required",
    "unavailable": "The database or Kafka does not answer",
    "unsupported-media-type": "The body must be JSON",
    "untrusted-origin": "The request comes from another site",
}


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

    type: Annotated[str, Field(description="Identifies the kind of problem.", examples=[f"{_URN}invalid"])]
    title: Annotated[str, Field(examples=[TITLES["invalid"]])]
    status: Annotated[int, Field(examples=[422])]
    detail: Annotated[str | None, Field(description="This problem, in words.", examples=[None])] = None
    errors: Annotated[list[Mistake] | None, Field(description="The values that cannot work.")] = None
    owed: Annotated[int | None, Field(description="Deliveries still owed, counted up to 10,001.", examples=[None])] = (
        None
    )


class RequestRefused(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        code: Code,
        detail: str | None = None,
        *,
        errors: Sequence[Mistake] = (),
        headers: Mapping[str, str] | None = None,
        owed: int | None = None,
    ) -> None:
        super().__init__(detail or TITLES[code])
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers, self.owed = tuple(errors), headers, owed


def concerns(path: str) -> bool:
    """Whether errors of this path are problem documents."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def document(refused: RequestRefused) -> JSONResponse:
    """The response that describes the problem."""
    content = Problem(
        type=_URN + refused.code,
        title=TITLES[refused.code],
        status=refused.status,
        detail=refused.detail,
        errors=list(refused.errors) or None,
        owed=refused.owed,
    )
    return JSONResponse(content.model_dump(exclude_none=True), refused.status, refused.headers, CONTENT_TYPE)


TRANSLATED = (
    NotFound,
    Conflict,
    InvalidSubscription,
    InvalidReplay,
    SettingsError,
    KafkaUnavailable,
    DatabaseUnavailable,
    SQLAlchemyError,
)


def problem_of(error: Exception) -> RequestRefused:
    """The problem of an error that a request raises. Those of the database are logged."""
    match error:
        case RequestRefused():
            return error
        case HTTPException():  # the framework refuses by itself: no such path, no such method, not JSON
            code: Code = _CODES.get(error.status_code, "bad-request")
            return RequestRefused(error.status_code, code, headers=error.headers)
        case RequestValidationError():
            return _of_validation(error.errors())
        case DatabaseUnavailable() | SQLAlchemyError():
            reason = unavailable(error)
            log.error("a request failed in the database", reason=str(reason or type(error).__name__), exc_info=error)
            if reason is not None:
                return RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", headers=RETRY_AFTER)
    return _of_package(error) or RequestRefused(HTTPStatus.INTERNAL_SERVER_ERROR, "failed")


def _of_package(error: Exception) -> RequestRefused | None:
    """The problem of an error that a package below raises on purpose."""
    if isinstance(error, InvalidSubscription | InvalidReplay):
        index = error.index if isinstance(error, InvalidReplay) else None
        example = f"; for example {error.example}" if isinstance(error, InvalidSubscription) and error.example else ""
        place = [each for each in (error.option, index) if each is not None]
        return invalid(Mistake(pointer=pointer(*place), detail=f"{error.why}{example}"))
    if isinstance(error, NotFound):  # without its number: another tenant's answer must be the same
        return RequestRefused(HTTPStatus.NOT_FOUND, "not-found", f"there is no such {error.what}{error.why}")
    if isinstance(error, Conflict | SettingsError):
        owed = error.owed if isinstance(error, DeliveriesOwed) else None
        return RequestRefused(HTTPStatus.CONFLICT, "conflict", str(error), owed=owed)
    if isinstance(error, KafkaUnavailable):
        return RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", str(error), headers=RETRY_AFTER)
    return None


def _of_validation(errors: Sequence[Mapping[str, Any]]) -> RequestRefused:
    """The problem of a request that does not fit its models, from Pydantic's errors."""
    if any(error["type"] == "json_invalid" for error in errors):
        return RequestRefused(HTTPStatus.BAD_REQUEST, "bad-request", "the body is not JSON")
    if any(error["loc"][0] == "path" for error in errors):
        return RequestRefused(HTTPStatus.NOT_FOUND, "not-found")
    return invalid(*_mistakes(errors[:_MOST_ERRORS]))


def invalid(*mistakes: Mistake) -> RequestRefused:
    """The problem of values that cannot work."""
    return RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", errors=mistakes)


def pointer(*parts: object) -> str:
    """The JSON Pointer of a place in the body."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


_CODES: Mapping[int, Code] = {
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
}


def _mistakes(errors: Sequence[Mapping[str, Any]]) -> Iterator[Mistake]:
    for error in errors:
        kind, *place = error["loc"]
        detail = _in_words(error)
        if kind == "body":
            yield Mistake(pointer=_bounded(pointer(*place)), detail=detail)
        elif kind == "header":
            yield Mistake(header=_bounded(str(place[0])), detail=detail)
        else:
            yield Mistake(parameter=_bounded(str(place[0] if place else kind)), detail=detail)


def _bounded(text: str) -> str:
    return text[:200].encode("ascii", "backslashreplace").decode()


def _in_words(error: Mapping[str, Any]) -> str:
    """Pydantic's error in words that do not quote the value."""
    return _WORDS.get(error["type"], "has a value of another kind").format(**error.get("ctx", {}))


_WORDS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "string_type": "must be a text",
    "string_too_long": "is too long; at most {max_length} characters are kept",
    "string_too_short": "is too short",
    "string_pattern_mismatch": "does not fit {pattern}",
    "too_long": "has too many members; at most {max_length} are taken",
    **dict.fromkeys(("enum", "literal_error"), "must be {expected}"),
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "list_type": "must be an array",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "finite_number"), "must be a number"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
}
