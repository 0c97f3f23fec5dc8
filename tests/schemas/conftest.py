"""A schema registry for each test, and its clients."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from consumer.schemas.registry import Registry
from tests.schemas.registry_server import SchemaRegistry, schema_registry


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    """An empty registry without authentication."""
    with schema_registry() as running:
        yield running


@pytest.fixture
def client_of() -> Iterator[Callable[..., Registry]]:
    """Makes clients of a registry with these settings besides its URL, and closes them in the end."""
    with ExitStack() as stack:

        def client(registry: SchemaRegistry, clock: Callable[[], float] = time.monotonic, **settings: Any) -> Registry:
            return stack.enter_context(closing(Registry(registry.settings(**settings), clock)))

        yield client
