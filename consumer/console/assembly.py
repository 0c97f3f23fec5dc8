"""Puts the console together, and in front of the API."""

from functools import partial
from http import HTTPStatus

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from consumer.api.backing import Backing
from consumer.api.tokens import TokenFile
from consumer.console import (
    deliveries,
    delivery_audit,
    events,
    overview,
    replays,
    search,
    subscription_forms,
    subscriptions,
)
from consumer.console.app import BASE, HEADERS, Frame, Said
from consumer.console.rendering import environment
from consumer.console.session import SignOuts

REFERENCE = "/reference"  # Swagger UI, which shows /openapi.json
REFERENCE_HEADERS = HEADERS | {
    "content-security-policy": HEADERS["content-security-policy"].replace("img-src 'self'", "img-src 'self' data:"),
    "cache-control": "no-cache",
}

SAID = {
    "created": Said("Subscribed.", more="Workers send it events within seconds."),
    "enabled": Said("Enabled.", more="Its held deliveries are sent within a minute."),
    "disabled": Said("Disabled.", "warn", "Its stored deliveries are held until it is enabled again."),
    "paused": Said("Paused.", "warn", "Its events wait in Kafka until it is resumed."),
    "still_paused": Said("Enabled.", "warn", "It is still paused: resume it to send its events."),
    "resumed": Said("Resumed.", more="Workers send the events of the pause within seconds."),
    "changed": Said("Changed.", more="Workers apply it within seconds."),
    "removed": Said("Removed.", "warn", "Workers give up its stored deliveries within a minute."),
    "published": Said("Published again.", more="The workers read it as a new record."),
    "replaying": Said("The replay has begun.", more="It runs in the background; this page shows its progress."),
    "goes-on": Said("The replay goes on.", more="It begins where it stopped."),
    "cancelled": Said("Cancelled.", more="Its stored deliveries are sent."),
}


def with_console(api: FastAPI, backing: Backing, tokens: TokenFile) -> ASGIApp:
    """The API with the console at /console, to which / redirects, and the API's reference at /reference.

    Answers are compressed, but not those to another site's page in the visitor's browser: it could send guesses that
    an answer repeats, and learn from the answer's length whether they are in it (BREACH). Browsers name that site.
    """
    backing, where = backing._replace(tokens=tokens), backing.deployment
    frame = Frame(tokens, SAID, SignOuts(where.engine), where.clock)
    modules = (subscriptions, subscription_forms, events, delivery_audit, deliveries, replays, search)
    pages = (each for module in modules for each in module.ROUTES)
    console = frame.app(
        [*overview.routes(backing), *(each._replace(page=partial(each.page, backing)) for each in pages)]
    )
    # It needs no token, as /openapi.json needs none.
    reference = environment(BASE).get_template("reference.html").render()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http":
            await api(scope, receive, send)
        elif path in {"/", BASE}:
            await RedirectResponse(f"{BASE}/", HTTPStatus.SEE_OTHER)(scope, receive, send)
        elif path.startswith(f"{BASE}/"):
            await console({**scope, "root_path": BASE}, receive, send)
        elif path == REFERENCE:
            await HTMLResponse(reference, headers=REFERENCE_HEADERS)(scope, receive, send)
        else:
            await api(scope, receive, send)

    compressing = GZipMiddleware(app, compresslevel=5)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and Headers(scope=scope).get("sec-fetch-site", "none") in {"same-origin", "none"}
        await (compressing if own else app)(scope, receive, send)

    return answer
