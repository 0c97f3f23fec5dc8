"""Where a subscription that begins in the past starts to read."""

import pytest
from sqlalchemy import Engine

from consumer.errors import InvalidSubscription, WebhooksError
from consumer.intake.log_reader import LogReader, Place
from consumer.ledger import cursors, marks
from consumer.ledger.cursors import CursorMove
from consumer.ops.start import begin, places, since
from consumer.subscriptions import repository
from models import CursorReason
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, URL, query

NOW = 1_785_247_200.0  # 2026-07-28T14:00Z


def test_a_start_is_a_time_an_age_or_the_beginning() -> None:
    """It is in the past, and a program names the zone."""
    assert since("earliest", NOW, None) == 0.0
    assert since("2h", NOW, None) == since("2026-07-28T12:00Z", NOW, None) == NOW - 7200
    for text in ("soon", "0h", "2026-07-28T13:00", "latest"):
        with pytest.raises(InvalidSubscription) as refused:
            since(text, NOW, None)
        assert refused.value.option == "start"


def test_each_partition_has_its_place(kafka_bootstrap: str) -> None:
    """The first record of the time, with its timestamp, or the end of the log.

    Only topics count that the subscription gets events from.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    here, other = kafka.topic(), kafka.topic()
    for second in range(3):
        kafka.write(here, [b"{}"], timestamp=int(NOW + second) * 1000)
    with LogReader(kafka.settings()) as reader:
        assert places(reader, [here, other], None, 0.0) == {(here, 0): Place(0, int(NOW) * 1000), (other, 0): Place(0)}
        assert places(reader, [here, other], here, NOW + 0.5) == {(here, 0): Place(1, int(NOW + 1) * 1000)}
        assert places(reader, [here, other], here, NOW * 10) == {(here, 0): Place(3)}
        with pytest.raises(WebhooksError, match="gets events from exists"):
            places(reader, [here], other, 0.0)


def test_a_start_is_noted_with_its_cursors(engine: Engine) -> None:
    """In the transaction of the subscription; the owners look. The note goes when the last of the cursors has gone.

    The cursors say how old their first records are, before these are read.
    """
    sub = repository.add(engine, URL, "a")
    with engine.begin() as connection:
        begin(connection, GROUP, sub, {("t", 0): Place(7, 5_000), ("t", 1): Place(0)}, 100.0)
    kept = [cursor for number in (0, 1) for cursor in cursors.of_partition(engine, GROUP, ("t", number))]
    assert [(each.due_key, each.reason, each.first, each.end, each.timestamp) for each in kept] == [
        (("t", 0, sub), CursorReason.START, 7, None, 5_000),
        (("t", 1, sub), CursorReason.START, 0, None, None),
    ]
    assert set(marks.recent(engine, GROUP, None).due_keys) == {("t", 0, sub), ("t", 1, sub)}
    for cursor, starts in zip(kept, (1, 0), strict=True):
        assert query(engine, "SELECT starts FROM webhook_subscriptions") == [(1,)]
        cursors.save(engine, [CursorMove(cursor.id, cursor.version, 9, 9, "", None)], 101.0)
        assert cursors.prune(engine, GROUP, cursor.due_key[:2], 9) == 1
        assert query(engine, "SELECT starts FROM webhook_subscriptions") == [(starts,)]
