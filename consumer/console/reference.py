"""The reference of the API at /reference: a page made from the OpenAPI description, without a script."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from consumer.api.reference import reference
from consumer.console.app import BASE
from consumer.console.front import HEADERS
from consumer.console.rendering import environment

PATH = "/reference"
_HEADERS = HEADERS | {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-cache",
}


def reference_page(description: Callable[[], Mapping[str, Any]]) -> Route:
    """The page, which needs no token, as /openapi.json needs none. It is made at the first visit."""

    @cache
    def text() -> str:
        templates = environment(BASE)
        templates.filters["prose"] = _prose
        return templates.get_template("reference.html").render(reference=reference(description()))

    def page(_: Request) -> Response:
        return HTMLResponse(text(), headers=_HEADERS)

    return Route(PATH, page)


def _prose(text: str) -> Markup:
    """A description, with text between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped)
