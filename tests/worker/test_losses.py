"""Events that Kafka has no more: each loss is counted, logged, and told once."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.ledger import outbox
from consumer.worker.losses import LONGEST_ID, Losses
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import GROUP


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    """A database thread with its notes."""
    result = Store(engine)
    yield result
    assert result.thread.close(20)


def test_a_loss_is_told_once(store: Store) -> None:
    """A worker that notices it again after a crash tells the same event. A loss of nothing is none."""
    losses = Losses(GROUP, store.notes)
    with capture_logs() as logs:
        for first, stop in ((5, 9), (5, 9), (9, 9), (5, 12)):
            losses.report(("t", 0, 1), first, stop, "retention removed their records")
    assert losses.offsets == 4 + 4 + 7
    assert [line["end_offset"] for line in logs] == [9, 9, 12]
    losses.report(("t" * 249, 10**9, 10**18), 0, 2**62, "the topic was deleted and made anew")
    store.write_notes()
    told = [operation for _, operation, _ in outbox.pending(store.engine, GROUP, 9)]
    assert [(each.type, each.data["first_offset"], each.data["end_offset"]) for each in told] == [
        ("subscription.events_lost", 5, 9),
        ("subscription.events_lost", 5, 12),
        ("subscription.events_lost", 0, 2**62),
    ]
    assert max(len(each.event_id) for each in told) == LONGEST_ID
