"""The number of a worker's round trips to Oracle: a few for each batch, however many rows it has. Speed is not tested.

The emulator counts the statements that the driver sends; each transaction adds a commit. A large body takes more of the
network, not more calls.
"""

from collections import Counter

import pytest
from sqlalchemy import Engine

from consumer.delivery.parking import STORE_BATCH
from consumer.ledger import store
from consumer.subscriptions import repository
from tests.databases import on_oracle
from tests.ledger.rows_kit import GROUP, URL, find, make_event, ordered, parked, result
from tests.oracle_emulator import OracleEmulator

PING = ("SELECT 1 FROM", 1)  # the pool's check of a session before it hands it out


def calls(emulator: OracleEmulator) -> list[tuple[str, int]]:
    """The first words of each call, and its number of rows of binds."""
    found = [(" ".join(call.sql.split()[:3]), len(call.rows)) for call in emulator.calls]
    emulator.calls.clear()
    return found


@on_oracle
@pytest.mark.parametrize("size", [450, 33_000])  # a larger body is sent as LONG
def test_a_batch_is_stored_in_three_calls_and_a_commit(engine: Engine, emulator: OracleEmulator, size: int) -> None:
    """One call looks up stored payloads, one inserts payloads, one inserts deliveries, each with all its rows."""
    repository.add(engine, URL, "user.created")
    rows = [parked(make_event(offset, body=bytes(size)), 1) for offset in range(STORE_BATCH)]
    emulator.calls.clear()
    store.park(engine, GROUP, rows, 1.0)
    assert Counter(calls(emulator)) == {
        PING: 1,
        ("SELECT webhook_payloads.record_offset, webhook_payloads.record_ts", 1): 1,
        ("INSERT INTO webhook_payloads", STORE_BATCH): 1,
        ("INSERT INTO webhook_deliveries", STORE_BATCH): 1,
    }


@on_oracle
def test_results_of_ordered_rows_take_few_calls(engine: Engine, emulator: OracleEmulator) -> None:
    """Ended attempts take one call; unblocking the rows behind them takes two, and a query finds keys still open."""
    repository.add(engine, URL, "user.created", ordering="key")
    store.park(engine, GROUP, [ordered(offset, 1, b"%d" % offset) for offset in range(100)], 1.0)
    found = find(engine)
    emulator.calls.clear()
    store.record(engine, GROUP, [result(row, "delivered") for row in found])
    assert Counter(calls(emulator)) == {
        PING: 1,
        ("UPDATE webhook_deliveries SET", 100): 3,  # ends, rows to unblock, rows to block
        ("SELECT DISTINCT webhook_deliveries.order_key,", 1): 1,
    }
