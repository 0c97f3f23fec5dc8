"""A registry for each test, and clients of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from consumer.schemas.registry import Registry
from tests.schemas.registry_server import SchemaRegistry, schema_registry


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    """An empty registry that wants no password."""
    with schema_registry() as running:
        yield running


@pytest.fixture
def client_of() -> Iterator[Callable[..., Registry]]:
    """A client of a registry, with these settings besides its URL; it is closed in the end."""
    with ExitStack() as stack:

        def client(registry: SchemaRegistry, **settings: Any) -> Registry:
            return stack.enter_context(closing(Registry(registry.settings(**settings))))

        yield client
