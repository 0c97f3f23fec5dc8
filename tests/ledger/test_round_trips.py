"""How often a worker goes to Oracle: a few times for a batch, however many rows are in it. Its speed is another matter.

The emulator counts the statements that the driver sends; each transaction ends with a commit more. A large body takes
more of the network, not more calls.
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

PING = ("SELECT 1 FROM", 1)  # the pool's look at a session before it is given out


def calls(emulator: OracleEmulator) -> list[tuple[str, int]]:
    """The first words of each call, and how many rows of binds went with it."""
    found = [(" ".join(call.sql.split()[:3]), len(call.rows)) for call in emulator.calls]
    emulator.calls.clear()
    return found


@on_oracle
@pytest.mark.parametrize("size", [450, 33_000])  # a larger one goes as LONG
def test_a_batch_is_stored_in_three_calls_and_a_commit(engine: Engine, emulator: OracleEmulator, size: int) -> None:
    """Which payloads are there, the payloads, the deliveries: all rows of a statement in one call."""
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
def test_results_are_two_calls_more_where_keys_go_in_order(engine: Engine, emulator: OracleEmulator) -> None:
    """Attempts that have ended are one call; what is behind them is set free by two, and a look at what is open."""
    repository.add(engine, URL, "user.created", ordering="key")
    store.park(engine, GROUP, [ordered(offset, 1, b"%d" % offset) for offset in range(100)], 1.0)
    found = find(engine)
    emulator.calls.clear()
    store.record(engine, GROUP, [result(row, "delivered") for row in found])
    assert Counter(calls(emulator)) == {
        PING: 1,
        ("UPDATE webhook_deliveries SET", 100): 4,  # first attempts, ends, what is free now, what is not
        ("SELECT DISTINCT webhook_deliveries.order_key,", 1): 1,
    }
