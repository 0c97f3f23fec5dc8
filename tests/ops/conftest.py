"""Fixtures of what operators do."""

from tests.sending.conftest import receive  # noqa: F401 (a fixture)
