"""Shared by the tests of the worker."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.schemas.conftest import registry  # noqa: F401 (a fixture)
from tests.simulation.deployment import Deployment
from tests.worker.catch_up_kit import MANY, Rig, unordered


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    """Two partitions and seven subscriptions, and a worker that owns both partitions."""
    result = Deployment(engine)
    result.world.start(0, 1)
    return result


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    """The ones that the test makes; their threads are closed."""
    made: list[Rig] = []
    yield made
    assert all(rig.thread.close(20) for rig in made)


@pytest.fixture
def rig(engine: Engine, rigs: list[Rig]) -> Rig:
    """A worker that owns a partition of many records, and one subscription whose events have no order."""
    rigs.append(rig := Rig(engine, MANY))
    unordered(rig)
    return rig
