"""For tests: the API with /v1 on a database, and tokens of every kind."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from fastapi import FastAPI
from sqlalchemy import Engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import SCOPES, TokenFile, line_of
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ledger import outbox
from consumer.ledger.rows import OperationalEvent
from consumer.ops.changes import Deployment
from consumer.subscriptions.endpoint_row import Rules

GROUP = "webhooks"
EVERYTHING = "all"  # the token with all scopes and tenants
URL = "https://example.com/hooks"
NEW = {"url": URL, "event_type": "order.created"}
DEFAULT = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)
running: list[BackgroundServer] = []  # closed after each test
# Scopes and tenant by the token's text, which is also its name.
TOKENS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "all": (SCOPES, None),
    "reader": (("read",), None),
    "writer": (("read", "write"), None),
    "blind": (("write",), None),
    "acme": (SCOPES, "acme"),
    "other": (SCOPES, "other"),
}


@dataclass
class Api:
    """A client of the application. `call` sends a token and JSON."""

    app: FastAPI
    engine: Engine
    url: str

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = EVERYTHING, **more: Any
    ) -> requests.Response:
        """Sends a request to a path below /v1."""
        headers = {"x-request-id": "test"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        headers |= more.pop("headers", {})
        content = {} if body is None else {"json": body}
        return requests.request(method, f"{self.url}/v1{path}", headers=headers, timeout=60, **content, **more)

    def create(self, *, token: str = EVERYTHING, **options: Any) -> dict[str, Any]:
        """Creates a subscription."""
        answer = self.call("POST", "/subscriptions", NEW | options, token=token)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def events(self) -> list[OperationalEvent]:
        """The operational events that wait to be published."""
        return [event for _, event, _ in outbox.pending(self.engine, GROUP, 1000)]


def token_file(path: Path) -> str:
    """Writes the token file of TOKENS."""
    path.write_text("\n".join(line_of(name, name, *given) for name, given in TOKENS.items()))
    return str(path)


def make_api(
    engine: Engine,
    tokens: TokenFile,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
    **backing: Any,
) -> Api:
    """The application on a database."""
    app = create_app(Backing(Deployment(engine, GROUP, Vault(), rules, DEFAULT, clock), **backing), tokens)
    server = BackgroundServer(app, listen("127.0.0.1", 0), "api")
    running.append(server)
    return Api(app, engine, f"http://127.0.0.1:{server.port}")
