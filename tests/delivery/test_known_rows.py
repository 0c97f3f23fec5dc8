"""The ordering keys of which a worker knows that they have rows."""

import itertools
from math import inf

from consumer.delivery.known_rows import RowsReading, StoredKeys, ordering_key_of
from consumer.ledger.rows import OrderingKey
from consumer.subscriptions.endpoint import Endpoint
from tests.ledger.rows_kit import URL, make_event


def test_only_ordered_subscriptions_and_records_with_a_key_are_ordered() -> None:
    """A null key is no key; an empty one is. Subscriptions, partitions and keys are independent."""
    ordered, plain, other = (Endpoint(number, URL, (b"key",), ordered=number != 2) for number in (1, 2, 3))
    assert ordering_key_of(make_event(key=b"k"), plain) is None
    assert ordering_key_of(make_event(key=None), ordered) is None
    ordering_keys = {
        ordering_key_of(make_event(key=b"k"), ordered),
        ordering_key_of(make_event(key=b"k"), other),
        ordering_key_of(make_event(key=b""), ordered),
        ordering_key_of(make_event(key=b"l"), ordered),
        ordering_key_of(make_event(key=b"k", partition=1), ordered),
        ordering_key_of(make_event(key=b"k", topic="u"), ordered),
    }
    assert None not in ordering_keys
    assert len(ordering_keys) == 6
    assert ordering_key_of(make_event(1, key=b"k"), ordered) in ordering_keys


def test_one_subscription_with_many_stored_keys_displaces_no_other() -> None:
    """Its keys in a partition are no longer tracked beyond the bound, and are tracked again once they are few."""
    ordering_keys = StoredKeys(most=100)
    healthy = [OrderingKey(2, "t", number, "k") for number in (0, 1)]
    for ordering_key in healthy:
        ordering_keys.seen(ordering_key)
    for number in range(1000):
        ordering_keys.seen(OrderingKey(1, "t", number % 2, str(number)))
        assert kept(ordering_keys) <= 100
        assert number > 97 or not ordering_keys.unknown, "there is room for a hundred"
    assert all(OrderingKey(1, "t", number % 2, "any") in ordering_keys for number in range(2))
    assert [OrderingKey(2, "t", number, key) in ordering_keys for number in (0, 1) for key in ("k", "l")] == [
        True,
        False,
    ] * 2
    assert ordering_keys.unknown == {("t", 0): 50, ("t", 1): 50}
    for number in (0, 1):
        ordering_keys.loaded(("t", number), [healthy[number], OrderingKey(1, "t", number, "left")], RowsReading())
    assert [OrderingKey(1, "t", 0, key) in ordering_keys for key in ("left", "any")] == [True, False]
    assert (ordering_keys.unknown, kept(ordering_keys)) == ({}, 4)


def test_very_many_subscriptions_take_no_room() -> None:
    """Where even one key for each is too many, all keys of their partition count as stored."""
    ordering_keys = StoredKeys(most=100)
    for number, key in itertools.product(range(1000), "ab"):
        ordering_keys.seen(OrderingKey(number, "t", 0, key))
        assert kept(ordering_keys) <= 100
    assert all(OrderingKey(number, "t", 0, "c") in ordering_keys for number in (0, 999))


def test_keys_that_come_and_go_take_no_room() -> None:
    """A key is forgotten with its last row, a subscription with its last key, and a partition with all of its keys."""
    ordering_keys = StoredKeys(most=10)
    for number in range(100):
        ordering_key = OrderingKey(number, "t", 0, str(number))
        ordering_keys.seen(ordering_key)
        assert ordering_key in ordering_keys
        ordering_keys.cleared([ordering_key])
        ordering_keys.seen(ordering_key._replace(partition=1))
        ordering_keys.leave([("t", 1)])
    assert (ordering_keys.unknown, ordering_keys._known) == ({}, {("t", 0): {}})


def test_a_row_that_a_reading_may_have_missed_is_known() -> None:
    """It was written since the reading began, or is being written. A later reading has it."""
    ordering_keys, ordering_key = StoredKeys(), OrderingKey(1, "t", 0, "k")
    before = ordering_keys.begin_reading()
    ordering_keys.began(ordering_key, 7)
    ordering_keys.written(ordering_key, 7, is_open=True)
    after = ordering_keys.begin_reading()
    assert [ordering_keys.first_unseen(ordering_key, each) for each in (before, after)] == [7, inf]
    ordering_keys.began(ordering_key, 5)
    assert [ordering_keys.first_unseen(ordering_key, each) for each in (before, after)] == [5, 5]
    ordering_keys.end_reading(before)
    ordering_keys.written(ordering_key, 5, is_open=False)
    assert ordering_keys.first_unseen(ordering_key, after) == inf, "a delivery that was given up holds up no other"


def test_a_loaded_partition_has_the_keys_that_its_reading_missed() -> None:
    """Else a later delivery would overtake the row. Keys that were known before and have no row any more are gone."""
    ordering_keys, (old, new, read) = StoredKeys(), (OrderingKey(1, "t", 0, key) for key in "abc")
    ordering_keys.seen(old)
    reading = ordering_keys.begin_reading()
    ordering_keys.began(new, 7)
    ordering_keys.written(new, 7, is_open=True)
    ordering_keys.loaded(("t", 0), [read], reading)
    assert [each in ordering_keys for each in (old, new, read)] == [False, True, True]
    assert kept(ordering_keys) == 2
    ordering_keys.loaded(("t", 0), None, reading)
    assert old in ordering_keys, "there are too many to know them"
    assert list(ordering_keys.unknown) == [("t", 0)]
    ordering_keys.loaded(("t", 0), [read], reading)
    assert (ordering_keys.unknown, kept(ordering_keys)) == ({}, 2)
    ordering_keys.end_reading(reading)
    ordering_keys.seen(old, 3)
    assert list(reading.missed) == [new], "it has ended"


def test_rows_that_are_being_written_count_one_by_one() -> None:
    """A key waits for the last of them, also if they have one offset. A partition that leaves takes them along."""
    ordering_keys, ordering_key, other = StoredKeys(), OrderingKey(1, "t", 0, "k"), OrderingKey(1, "t", 1, "k")
    for each in (ordering_key, ordering_key, other):
        ordering_keys.began(each, 7)
    ordering_keys.written(ordering_key, 7, is_open=False)
    assert ordering_key in ordering_keys
    assert ordering_keys.first_unseen(ordering_key, RowsReading()) == 7
    ordering_keys.leave([("t", 0)])
    assert [each in ordering_keys for each in (ordering_key, other)] == [False, True]
    assert ordering_keys.first_unseen(ordering_key, RowsReading()) == inf
    ordering_keys.written(ordering_key, 7, is_open=False)
    assert ordering_key not in ordering_keys, "a late answer"
    for offset in (9, 5):
        ordering_keys.began(ordering_key, offset)
    assert ordering_keys.first_unseen(ordering_key, RowsReading()) == 5


def kept(ordering_keys: StoredKeys) -> int:
    """The number of known keys; a subscription with too many of them counts as one."""
    found = sum(
        1 if keys is None else len(keys) for each in ordering_keys._known.values() for keys in (each or {}).values()
    )
    assert ordering_keys._count == found
    return found
