"""The API's reference at /reference: Swagger UI, which shows /openapi.json. It needs no network and no token."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from consumer.console.app import BASE
from consumer.console.front import HEADERS
from consumer.console.rendering import environment

PATH = "/reference"
_HEADERS = HEADERS | {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-cache",
}


def reference_page() -> Route:
    """The page, which needs no token, as /openapi.json needs none."""
    text = environment(BASE).get_template("reference.html").render()

    def page(_: Request) -> Response:
        return HTMLResponse(text, headers=_HEADERS)

    return Route(PATH, page)
