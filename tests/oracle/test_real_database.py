"""The handling of the database of ORACLE_URL by `make test-oracle`, shown on an emulated one."""

import pytest
from _pytest.outcomes import Exit

from consumer.subscriptions import repository
from tests.databases import connect_to
from tests.ledger.rows_kit import run
from tests.oracle.connection_kit import tables
from tests.oracle.oracle_databases import RealOracle
from tests.oracle_emulator import OracleEmulator

URL = "https://example.com/hook"


def test_each_test_begins_with_empty_tables_and_the_last_leaves_none(oracle: OracleEmulator) -> None:
    """Ids start at 1 in each test. A table that a test removed is restored, and one that it added is dropped."""
    with RealOracle(connect_to, oracle.url) as real:
        for leave in ("ALTER TABLE webhook_secrets RENAME TO away", "CREATE TABLE mine (id NUMBER)", "COMMIT"):
            with real.making() as make:
                engine = make()
                assert repository.add(engine, URL, "user.created", "secret") == 1
                assert len(tuple(repository.walk(engine))) == 1
                run(engine, leave)
    assert tables(oracle.url) == []


def test_a_schema_that_is_in_use_is_refused(oracle: OracleEmulator) -> None:
    """The tests cannot know whose tables these are, so they touch none."""
    engine = connect_to(oracle.url)
    run(engine, "CREATE TABLE orders (id NUMBER)")
    engine.dispose()
    with pytest.raises(Exit, match=r"orders.*of its own"), RealOracle(connect_to, oracle.url):
        pass
    assert tables(oracle.url) == ["orders"]
