"""Rigs on an empty database."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.delivery.desk_kit import Desk
from tests.delivery.store_kit import Store


@pytest.fixture
def rigs() -> Iterator[list[Store]]:
    """Rigs whose database threads end with the test."""
    made: list[Store] = []
    yield made
    for rig in made:
        assert rig.thread.close(20)


@pytest.fixture
def store(engine: Engine, rigs: list[Store]) -> Store:
    """A Parking."""
    rigs.append(store := Store(engine))
    return store


@pytest.fixture
def desk(engine: Engine, rigs: list[Store]) -> Desk:
    """A Settling."""
    rigs.append(desk := Desk(engine))
    return desk
