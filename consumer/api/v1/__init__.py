"""The resources under /v1. Each module has the router of one resource; `install` adds them to the application."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from consumer.api.backing import Backing
from consumer.api.problems import CONTENT_TYPE, PREFIX, Problem
from consumer.api.v1 import deliveries, observed, replays, secrets, subscriptions

# A new resource: its module here, its router in this tuple.
_ROUTERS = (subscriptions.router, secrets.router, deliveries.router, observed.router, replays.router)
_CONTENT = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused; `type` says why", "content": _CONTENT},
    "5XX": {"description": "The service failed, or does not answer now", "content": _CONTENT},
}


def install(app: FastAPI, backing: Backing) -> None:
    """Add the routes, and the models of problems to the description."""
    app.state.backing = backing
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX, responses=_FAILURES)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        """The description, with the models of problems, to which the routes' responses refer, and with scopes."""
        if app.openapi_schema is None:
            _, models = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            whole = described()
            whole["components"]["schemas"].update(models["$defs"])
            _tell_scopes(whole)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _tell_scopes(description: dict[str, Any]) -> None:
    """Write each operation's scopes into its description: viewers of OpenAPI show none for a bearer token."""
    for methods in description["paths"].values():
        for operation in methods.values():
            scopes = [f"`{scope}`" for each in operation.get("security", ()) for scope in next(iter(each.values()))]
            if scopes:
                operation["description"] = f"{operation['description']}\n\nScope: {', '.join(scopes)}."
