"""The page of the API's reference. tests/end_to_end/test_console_incident.py opens it in a browser."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests
from sqlalchemy import create_engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import TokenFile
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ops.changes import Deployment
from consumer.ops.overview import Overview


def nothing() -> Overview:
    """The overview, which this page does not request."""
    raise AssertionError


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of an API with a token, and of the console."""
    engine, tokens = create_engine("sqlite://"), TokenFile(None, "a-token-of-the-api")
    backing = Backing(Deployment(engine, "webhooks", Vault()), look=nothing)
    app = with_console(create_app(backing, tokens), backing, tokens)
    with closing(BackgroundServer(app, listen("127.0.0.1", 0), "api")) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_it_needs_nothing_from_elsewhere(url: str) -> None:
    """Without a token, it refers only to files of this server; its policy allows no inline script and no eval."""
    page = requests.get(f"{url}/reference", timeout=300)
    policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy.pop("img-src")} | set(policy.values()) == {"'self' data:", "'self'", "'none'"}
    targets = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(targets) == 5
    for target in targets:
        assert target.startswith("/")
        assert requests.get(f"{url}{target}", timeout=300).status_code == 200


def test_it_is_read_only(url: str) -> None:
    """Other methods are refused; the console links to it."""
    assert requests.head(f"{url}/reference", timeout=300).status_code == 200
    assert requests.post(f"{url}/reference", timeout=300).status_code == 405
    with requests.Session() as browser:
        signed_in = browser.post(
            f"{url}/console/sign-in", data={"token": "a-token-of-the-api", "next": "/audit"}, timeout=300
        )
    assert 'href="/reference"' in signed_in.text
