"""The admin HTTP API."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException

from consumer import __version__
from consumer.api import v1
from consumer.api.backing import Backing
from consumer.api.guard import TOKEN, WANTED, Guard
from consumer.api.problems import TRANSLATED, RequestRefused, concerns, document, problem_of
from consumer.api.tokens import TokenFile
from consumer.crypto.keys import generate
from consumer.errors import InvalidSubscription


class Registration(BaseModel):
    """A subscription to register."""

    model_config = ConfigDict(strict=True, extra="forbid")

    url: Annotated[str, Field(description="Where to POST the events.", examples=["https://example.com/hooks"])]
    event_type: Annotated[str, Field(alias="eventType", description="The events' type.", examples=["user.created"])]
    own_secret: Annotated[
        bool,
        Field(
            alias="ownSecret",
            description="Sign with a new secret of its own, which is in the response.",
            examples=[True],
        ),
    ] = False


class RegistrationAnswer(BaseModel):
    """The answer to a registration."""

    message: Annotated[str, Field(examples=["Webhook registered successfully"])]
    secret: Annotated[
        str | None,
        Field(
            description="The secret to verify with, if ownSecret is true. It is shown only once.",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ] = None


class Registered(BaseModel):
    """A subscription as it is stored, without its secrets; a password in its url is left out."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    id: Annotated[int, Field(examples=[7])]
    url: Annotated[str, Field(examples=["https://example.com/hooks"])]
    event_type: Annotated[str, Field(description="A type, or a pattern.", examples=["user.created"])]
    tenant: Annotated[str, Field(description="The tenant whose events it gets; * for all.", examples=["*"])]
    enabled: Annotated[bool, Field(examples=[True])]
    disabled_reason: Annotated[str | None, Field(examples=[None])]
    failing_since: Annotated[datetime | None, Field(examples=[None])]
    created_at: Annotated[datetime | None, Field(examples=["2026-07-28T14:00:00Z"])]


class ErrorText(BaseModel):
    """An error message for a person to read."""

    error: Annotated[str, Field(examples=["eventType is missing"])]


class Alive(BaseModel):
    """The answer of a live process."""

    alive: Annotated[bool, Field(examples=[True])]


_FAILED = "Failed to register webhook"
_NOT_SHOWN = "Failed to look the subscription up"
_ABSENT = "There is no such subscription"
_NEEDS_ITS_OWN = "ownSecret must be true: each subscription needs a secret of its own (WEBHOOK_REQUIRE_OWN_SECRET)"
_FAILURES = {
    400: "The request is malformed, or the url or event type cannot work.",
    401: "The bearer token is missing or wrong.",
    403: "No API_TOKEN is set, and the request is not to localhost.",
    413: "The body is too large.",
    500: "The database failed.",
}
_FAILURES_OF_A_LOOK = {status: _FAILURES[status] for status in (401, 403, 500)} | {404: f"{_ABSENT}."}
_LOCATION = {"description": "The path that shows the subscription.", "schema": {"type": "string"}}


def create_app(backing: Backing, tokens: TokenFile) -> FastAPI:
    """The API. If tokens are required, requests must carry one; else their Host must be a loopback name."""
    backing = backing._replace(tokens=tokens)
    app = FastAPI(
        title="kafka-webhooks",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Guard, tokens=tokens)
    for kind in (HTTPException, RequestValidationError, RequestRefused, *TRANSLATED, Exception):
        app.add_exception_handler(kind, _failed)
    v1.install(app, backing)

    @app.post(
        "/register-webhook",
        status_code=HTTPStatus.CREATED,
        response_model_exclude_none=True,
        responses={HTTPStatus.CREATED: {"headers": {"Location": _LOCATION}}, **_described(_FAILURES)},
        dependencies=[Security(TOKEN, scopes=["write"])],
        tags=["registration"],
    )
    def register_webhook(registration: Registration, request: Request, response: Response) -> RegistrationAnswer:
        """Subscribe a url to the events of a type."""
        secret = generate("hmac") if registration.own_secret else None
        if backing.deployment.rules.own_secret and secret is None:
            raise HTTPException(HTTPStatus.BAD_REQUEST, _NEEDS_ITS_OWN)
        caller = request.state.caller
        backing.check_url(caller, registration.url)
        own = [] if secret is None else [("signing", secret)]
        added = backing.changes(caller).add(registration.url, registration.event_type, new_secrets=own)
        response.headers["location"] = f"/subscriptions/{added.id}"
        return RegistrationAnswer(message="Webhook registered successfully", secret=secret)

    @app.get(
        "/subscriptions/{subscription_id}",
        responses=_described(_FAILURES_OF_A_LOOK),
        dependencies=[Security(TOKEN, scopes=["read"])],
        tags=["registration"],
    )
    def show_registered_subscription(
        subscription_id: Annotated[int, Path(ge=-(2**63), lt=2**63, examples=[7])],
    ) -> Registered:
        """Show a subscription, without its secrets."""
        return Registered.model_validate(backing.deployment.subscription(subscription_id), from_attributes=True)

    @app.get("/healthz", tags=["health"])
    async def show_health() -> Alive:
        """Answer that the process is alive; no token is needed."""
        return Alive(alive=True)

    return app


def _described(failures: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorText, "description": text} for status, text in failures.items()}


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error: a problem document, or a text outside of /v1."""
    problem = problem_of(error)
    if concerns(request.url.path):
        return document(problem)
    match error:
        case HTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case InvalidSubscription():
            return JSONResponse({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        case RequestValidationError() if problem.status != HTTPStatus.NOT_FOUND:
            return JSONResponse({"error": "; ".join(map(_explain, error.errors()))}, HTTPStatus.BAD_REQUEST)
    if problem.status == HTTPStatus.NOT_FOUND:
        return JSONResponse({"error": _ABSENT}, HTTPStatus.NOT_FOUND)
    return JSONResponse({"error": _FAILED if request.method == "POST" else _NOT_SHOWN}, 500)


def _explain(problem: Mapping[str, Any]) -> str:
    """One problem in words, without quoting the request."""
    place = ".".join(str(part) for part in problem["loc"][1:])
    match problem["type"]:
        case "json_invalid":
            return "the body is not JSON"
        case "missing" if place:
            return f"{place} is missing"
        case "string_type":
            return f"{place} must be a string"
        case "bool_type":
            return f"{place} must be true or false"
        case _:
            return WANTED
