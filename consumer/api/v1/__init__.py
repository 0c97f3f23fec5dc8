"""The resources under /v1. Each module has the router of one resource; `install` adds them to the application."""

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic.json_schema import models_json_schema

from consumer.api.problems import PREFIX, Problem, Refused, document
from consumer.api.v1 import deliveries, observed, replays, secrets, subscriptions
from consumer.api.v1.context import TRANSLATED, Backing, translated

# A new resource: its module here, its router in this tuple.
_ROUTERS = (subscriptions.router, secrets.router, deliveries.router, observed.router, replays.router)


def install(app: FastAPI, backing: Backing) -> None:
    """Add the routes, and the handlers of the errors that they raise."""
    app.state.backing = backing
    token_sent = Depends(HTTPBearer(auto_error=False))  # for /openapi.json; the guard has checked the token before
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX, dependencies=[token_sent])
    for kind in (Refused, *TRANSLATED):
        app.add_exception_handler(kind, _answer)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        """The description, with the models of problems, to which the routes' responses refer."""
        if app.openapi_schema is None:
            _, models = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            described()["components"]["schemas"].update(models["$defs"])
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


async def _answer(_: Request, error: Exception) -> JSONResponse:
    return document(error if isinstance(error, Refused) else translated(error))
