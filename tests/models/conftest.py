"""Tests of statements run on each database."""

from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
