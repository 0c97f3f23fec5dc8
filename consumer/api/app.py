"""The admin HTTP API."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from consumer import __version__
from consumer.api import (
    backtest,
    deliveries,
    delivery_audit,
    events,
    journals,
    observed,
    replays,
    search,
    secrets,
    subscriptions,
)
from consumer.api.backing import Backing
from consumer.api.context import check_query
from consumer.api.description import SERVERS, TAGS, complete
from consumer.api.guard import TOKEN, WANTED, Guard
from consumer.api.problems import (
    CONTENT_TYPE,
    PREFIX,
    TRANSLATED,
    Code,
    RequestRefused,
    concerns,
    document,
    problem_of,
)
from consumer.api.tokens import TokenFile
from consumer.crypto.keys import generate


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


class ErrorText(BaseModel):
    """An error message for a person to read."""

    error: Annotated[str, Field(examples=["eventType is missing"])]


# A new resource of /v1: its module in this package, its router in this tuple.
_ROUTERS = (
    backtest.router,
    subscriptions.router,
    secrets.router,
    secrets.public,
    deliveries.router,
    events.router,
    search.router,
    observed.router,
    delivery_audit.router,
    replays.router,
    journals.router,
)
_CONTENT = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused; `type` says why", "content": _CONTENT},
    "5XX": {"description": "The service failed, or does not answer now", "content": _CONTENT},
}
_FAILED = "Failed to register webhook"
_NEEDS_ITS_OWN = "ownSecret must be true: each subscription needs a secret of its own (WEBHOOK_REQUIRE_OWN_SECRET)"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    HTTPStatus.CREATED: {
        "headers": {"Location": {"description": "The path that shows the subscription.", "schema": {"type": "string"}}}
    },
    "4XX": {"model": ErrorText, "description": "The request is refused."},
    "5XX": {"model": ErrorText, "description": "The service failed."},
}


def create_app(backing: Backing, tokens: TokenFile) -> FastAPI:
    """The API. If tokens are required, requests must carry one; else their Host must be a loopback name."""
    backing = backing._replace(tokens=tokens)
    app = FastAPI(
        title="kafka-webhooks",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        servers=SERVERS,
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Guard, tokens=tokens)
    for kind in (HTTPException, RequestValidationError, RequestRefused, *TRANSLATED, Exception):
        app.add_exception_handler(kind, _failed)
    app.state.backing = backing
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX, responses=_PROBLEMS, dependencies=[Depends(check_query)])

    @app.post(
        "/register-webhook",
        status_code=HTTPStatus.CREATED,
        response_model_exclude_none=True,
        responses=_RESPONSES,
        dependencies=[Security(TOKEN, scopes=["write"])],
        tags=["registration"],
    )
    def register_webhook(registration: Registration, request: Request, response: Response) -> RegistrationAnswer:
        """Subscribe a url to the events of a type."""
        secret = generate("hmac") if registration.own_secret else None
        if backing.deployment.rules.own_secret and secret is None:
            raise RequestRefused(Code.BAD_REQUEST, _NEEDS_ITS_OWN)
        caller = request.state.caller
        backing.check_url(caller, registration.url)
        own = [] if secret is None else [("signing", secret)]
        added = backing.changes(caller).add(registration.url, registration.event_type, new_secrets=own)
        response.headers["location"] = f"/v1/subscriptions/{added.id}"
        return RegistrationAnswer(message="Webhook registered successfully", secret=secret)

    @app.get("/healthz", tags=["health"])
    async def show_health() -> dict[str, bool]:
        """Answer that the process is alive; no token is needed."""
        return {"alive": True}

    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(described())
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
    return app


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error: a problem document, or a text outside of /v1."""
    problem = problem_of(error, getattr(request.state, "caller", None))
    if problem.code is Code.METHOD_NOT_ALLOWED:
        problem.headers = {"allow": ", ".join(_methods(request))}
    if concerns(request.url.path):
        return document(problem)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return JSONResponse({"error": _FAILED}, 500)
    if problem.code is not Code.INVALID:
        return JSONResponse({"error": str(problem)}, problem.status, problem.headers)
    mistakes = [f"{each.pointer[1:]}: {each.detail}" for each in problem.errors if each.pointer]
    return JSONResponse({"error": "; ".join(mistakes) or WANTED}, 400)


def _methods(request: Request) -> list[str]:
    """All methods of the path (RFC 9110, 15.5.6); Starlette's own answer has those of one route."""

    def serves(method: str) -> bool:
        asked = {**request.scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if serves(method)]
