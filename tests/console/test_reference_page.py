"""The page of the API's reference, which works without a token and without a network."""

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


def test_it_shows_every_operation(url: str) -> None:
    """Without a token, like /openapi.json, it shows each with its id, its path, and a link to it."""
    page = requests.get(f"{url}/reference", timeout=300)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    paths = requests.get(f"{url}/openapi.json", timeout=300).json()["paths"]
    for path, methods in paths.items():
        assert f"<code>{path}</code>" in page.text
        for operation in methods.values():
            assert page.text.count(f'<article class="card" id="{operation["operationId"]}"') == 1
            assert f'<a href="#{operation["operationId"]}">' in page.text


def test_it_needs_nothing_from_elsewhere(url: str) -> None:
    """It refers only to this server or to itself, and its policy allows no script."""
    page = requests.get(f"{url}/reference", timeout=300)
    policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert not {"script-src", "connect-src"} & policy.keys()
    assert not re.search(r"<script|\sstyle=|\son\w+=", page.text)
    anchors = set(re.findall(r'\sid="([^"]+)"', page.text))
    targets = set(re.findall(r'(?:href|src)="([^"]+)"', page.text))
    assert len(targets) > len(anchors) / 3
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("/console/") or "/static/" in target:
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
