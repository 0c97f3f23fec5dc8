"""Fixtures of what operators do."""

from tests.sending.conftest import authority, net, receive  # noqa: F401 (fixtures)
