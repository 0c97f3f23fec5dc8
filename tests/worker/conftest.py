"""Shared by the tests of the worker."""

import pytest
from sqlalchemy import Engine

from tests.schemas.conftest import registry  # noqa: F401 (a fixture)
from tests.simulation.deployment import Deployment


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    """Two partitions and seven subscriptions, and a worker that owns both partitions."""
    result = Deployment(engine)
    result.world.start(0, 1)
    return result
