"""Fixtures of the HTTP API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from tests.api.v1_kit import Api, make_api, running, token_file


@pytest.fixture(autouse=True)
def servers_end() -> Iterator[None]:
    """Closes the servers that the test has started."""
    yield
    while running:
        running.pop().close()


@pytest.fixture
def api(engine: Engine, tmp_path: Path) -> Api:
    """The application with a token file."""
    return make_api(engine, TokenFile(token_file(tmp_path / "tokens.toml")))
