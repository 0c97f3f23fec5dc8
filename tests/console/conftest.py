"""Consoles under test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import SCOPES, Caller, TokenFile
from consumer.config.environment import load
from consumer.config.settings import RuleSettings
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.matching.destinations import resolving_rules_of, rules_of
from consumer.ops.changes import Deployment
from consumer.ops.overview import overview
from tests.chromium import chromium  # noqa: F401 (a fixture)
from tests.console.browser import Browser
from tests.console.tokens import Tokens
from tests.ledger.rows_kit import GROUP

RULES = load(RuleSettings, {})
CALLERS = {
    "all": Caller("all", frozenset(SCOPES)),
    "acme": Caller("acme", frozenset(SCOPES), "acme"),
    "reader": Caller("reader", frozenset({"read"})),
    "writer": Caller("writer", frozenset({"read", "write"})),
}


@pytest.fixture
def console(engine: Engine) -> Iterator[Callable[..., Browser]]:
    """Opens a browser for a token of CALLERS, of a console on this database; None: of a console without tokens."""
    servers = []

    def browser_of(
        token: str | None, tokens: TokenFile | None = None, rules: RuleSettings = RULES, **more: Any
    ) -> Browser:
        where = Deployment(engine, GROUP, Vault(), rules_of(rules), default=("the-secret-of-the-deployment",))
        tokens = tokens or Tokens({} if token is None else CALLERS)
        refusal = resolving_rules_of(RULES, lambda *_: {}).refusal
        backing = Backing(where, refusal, look=lambda: overview(engine, None, ()), **more)
        app = with_console(create_app(backing, tokens), backing, tokens)
        servers.append(BackgroundServer(app, listen("127.0.0.1", 0), "console"))
        browser = Browser(servers[-1].port)
        if token is not None:
            browser.post("/sign-in", data={"token": token})
        return browser

    yield browser_of
    for server in servers:
        server.close()
