"""A browser without scripts: it keeps cookies, follows redirects, and sends forms."""

import re
from typing import Any

import requests

from consumer.console.app import BASE


class Browser(requests.Session):
    """A browser of a console: `path` is below its root. It keeps cookies and follows redirects."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.base = f"http://127.0.0.1:{port}{BASE}"

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """Sends a request."""
        return super().request(method, f"{self.base}{url}", timeout=300, **options)


def form_token(page: str) -> str:
    """The token of the forms on a page."""
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]
