"""A process that may open no more files."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from consumer.errors import NoDescriptor
from consumer.sending.pool import fitting, none_left
from tests.sending.conftest import Net


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("limit", "slots"), [(1_000_000, 1000), (2000, 1000), (1500, 1000), (1024, 524), (200, 50), (75, 19), (3, 1)]
)
def test_few_descriptors_leave_fewer_slots(limit: int, slots: int) -> None:
    """Brokers, the database, ports and files need some: 500, or three quarters of few."""
    assert fitting(1000, limit) == slots


@pytest.mark.parametrize("host", ["127.0.0.1", "name.test"])
def test_without_a_descriptor_there_is_no_attempt(net: Net, host: str) -> None:
    """The error says so, whether the connection or the look-up of the name has none. Kept connections are closed."""
    sender, receiver = net.sender(), net.receive()
    sender.response(receiver.url)
    assert len(sender.idle) == 1
    assert not none_left()
    with no_more_files():
        result = sender.result(f"http://{host}:1/")
    assert isinstance(result, NoDescriptor)
    assert "this process may open no more files" in str(result)
    assert sender.idle == []
    sender.response(receiver.url)
