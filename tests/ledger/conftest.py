"""Tests of statements run on each database, most of them with one subscription."""

import pytest
from sqlalchemy import Engine

from consumer.subscriptions import repository
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import URL


@pytest.fixture
def sub(engine: Engine) -> int:
    """The id of a subscription to user.created."""
    return repository.add(engine, URL, "user.created")
