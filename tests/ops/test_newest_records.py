"""The newest records of a topic, and the dead letters among them, on the mock cluster."""

import json
from collections.abc import Callable
from itertools import chain

import pytest
from sqlalchemy import Engine

from consumer.crypto.vault import Vault
from consumer.errors import KafkaUnavailable, WebhooksError
from consumer.intake.record import Record
from consumer.ledger import outbox
from consumer.ops import dead_letters, events
from consumer.ops.changes import Changes, Deployment
from consumer.ops.dead_letters import PUBLISHED, DeadLetter, Found, publish_many, recent, search
from consumer.ops.events import newest, tail
from tests.kafka_kit import Kafka

LETTER = [(f"dead-letter-{name}", b"1") for name in ("topic", "partition", "offset", "reason")]
DIGEST = ("dead-letter-sha256", b"0" * 64)


@pytest.mark.parametrize(
    ("headers", "size", "cut"),
    [
        ([], 5, False),
        ([("dead-letter-size", b"7"), DIGEST], 7, True),
        ([("dead-letter-size", b"7")], 5, False),
        ([("dead-letter-size", b"9" * 5000), DIGEST], 5, False),
        ([("dead-letter-size", b"-7"), DIGEST], 5, False),
    ],
)
def test_a_producers_header_does_not_look_like_the_size_of_a_cut_record(
    mock_kafka: str, headers: list[tuple[str, bytes]], size: int, *, cut: bool
) -> None:
    """A worker writes the size of a cut record together with its digest.

    Earlier releases kept the `dead-letter-` headers of the producer.
    """
    kafka = Kafka(mock_kafka, real=False)
    settings = kafka.settings(dead_letters=kafka.topic())
    kafka.write(settings.dead_letter_topic, [b"value"], headers=[*LETTER, *headers])
    (letter,) = recent(settings, 1).found
    assert (letter.size, letter.lacking is not None) == (size, cut)


def test_the_newest_of_large_records_are_shown(mock_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are left out if all together are too large, and one record is shown however large it is."""
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    for partition in range(2):
        kafka.write(topic, [b"%d" % number * 1000 for number in range(10)], partition=partition)

    def shown(most_bytes: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(events, "MOST_BYTES", most_bytes)
        return sorted((each.partition.number, each.offset) for each in newest(kafka.settings(), topic, 5, partition))

    for partition in range(2):
        assert shown(3500) == [(partition, offset) for offset in (7, 8, 9)]
    assert shown(500) == [(1, 9)]


@pytest.mark.parametrize(("limit", "most_bytes"), [(1, 16), (3, 10**6), (7, 2500), (99, 10**6)])
def test_pages_have_each_record_once(
    mock_kafka: str, monkeypatch: pytest.MonkeyPatch, limit: int, most_bytes: int
) -> None:
    """Also if a page is cut by its bytes, timestamps run backwards, records are left out, and new ones come meanwhile.

    A page of whole partitions is in the order of time as far as each partition is.
    """
    monkeypatch.setattr(events, "MOST_BYTES", most_bytes)
    kafka = Kafka(mock_kafka, real=False)
    topic, settings = kafka.topic(), kafka.settings()
    stamps = {0: [10, 20, 15, 40, 5], 1: [30, 12, 25], 2: [1]}
    for partition, times in stamps.items():
        for each in times:
            kafka.write(topic, [b"%d" % each * 100], partition=partition, timestamp=1_700_000_000_000 + each)

    def choose(record: Record) -> tuple[int, int, int] | None:
        place = record.partition.number, record.offset
        return None if place == (0, 1) else (*place, record.timestamp - 1_700_000_000_000)

    pages = [tail(settings, topic, limit, choose)]
    kafka.write(topic, [b"later"] * 2, partition=2)
    while pages[-1].position is not None:
        assert pages[-1].found or limit == 1
        pages.append(tail(settings, topic, limit, choose, json.loads(json.dumps(pages[-1].position))))
        assert len(pages) < 20
    found = list(chain.from_iterable(page.found for page in pages))
    for partition, times in stamps.items():
        left = [(partition, offset, at) for offset, at in enumerate(times) if (partition, offset) != (0, 1)]
        assert [each for each in found if each[0] == partition] == left[::-1]
    if limit == 99:
        assert [at for *_, at in found] == [25, 12, 30, 5, 40, 15, 10, 1]
    assert tail(settings, topic, 2, lambda _: None, looked_at=1).found == []


def test_records_that_do_not_arrive_are_no_end(mock_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones could be missing: the next page would leave them out."""
    monkeypatch.setattr(events, "SECONDS", 0.0)
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    kafka.write(topic, [b"one"])
    with pytest.raises(KafkaUnavailable, match="did not arrive within 0 s; ask for fewer"):
        newest(kafka.settings(), topic, 1)


def headers_of(topic: str, reason: str, *more: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    """The headers of a dead letter."""
    told = {"topic": topic, "partition": "0", "offset": "1", "reason": reason}
    return [*((f"dead-letter-{name}", text.encode()) for name, text in told.items()), *more]


def test_many_dead_letters_are_published_again_once(
    mock_kafka: str, sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes to its own topic, unchanged. A bound ends a run, and the next goes on with the rest."""
    monkeypatch.setattr(dead_letters, "_BATCH", 3)
    kafka = Kafka(mock_kafka, real=False)
    orders, users = kafka.topic(), kafka.topic()
    settings = kafka.settings(dead_letters=kafka.topic())
    registry = Deployment(sqlite_engine, settings.group_id, Vault())

    def write(values: list[bytes], topic: str, reason: str, *more: tuple[str, bytes], partition: int = 0) -> None:
        headers = headers_of(topic, reason, ("event-id", b"e"), *more)
        kafka.write(settings.dead_letter_topic, values, headers=headers, partition=partition)

    def found(limit: int, wanted: Callable[[DeadLetter], bool] = lambda _: True) -> Found:
        return search(settings, registry, limit, 0.0, None, wanted)

    write([b"%d" % number for number in range(5)], orders, "not_json")
    write([b"5", b"6"], orders, "not_json", partition=1)
    write([b"cut"], orders, "not_json", ("dead-letter-size", b"9"), DIGEST)
    write([b"other"], users, "no_type")
    kafka.write(settings.dead_letter_topic, [b"of somebody else"])
    every = found(100)
    assert (len(every.places), every.kinds) == (8, {(orders, "not_json"): 7, (users, "no_type"): 1})
    assert (every.lacking, every.published, every.more) == (1, 0, False)

    first = found(4, lambda letter: letter.topic == orders)
    assert (len(first.places), first.more) == (4, True)
    assert sum(publish_many(Changes(registry, "anna"), settings, first.places)) == 4
    rest = found(4, lambda letter: letter.topic == orders)
    assert (len(rest.places), rest.published, rest.more) == (3, 4, False)
    assert sum(publish_many(Changes(registry, "anna"), settings, rest.places)) == 3
    assert (found(100).kinds, found(100).published) == ({(users, "no_type"): 1}, 7)

    records = newest(settings, orders, 100)
    assert sorted(record.value or b"" for record in records) == [b"%d" % number for number in range(7)]
    assert {tuple(record.headers or ()) for record in records} == {(("event-id", b"e"),)}
    assert {record.key for record in records} == {b"key"}
    noted = [event for _, event, _ in outbox.pending(sqlite_engine, settings.group_id, 100)]
    assert {(event.type, event.data["actor"], str(event.data["published_to"])) for event in noted} == {
        (PUBLISHED, "anna", str([orders]))
    }
    assert sum(str(event.data["places"]).count("[") - 1 for event in noted) == 7


def test_a_refused_dead_letter_ends_the_publishing_and_the_others_are_marked(
    mock_kafka: str, sqlite_engine: Engine
) -> None:
    """What was acknowledged is not published a second time."""
    kafka = Kafka(mock_kafka, real=False)
    settings = kafka.settings(dead_letters=kafka.topic(), message_max_bytes="2000")
    registry = Deployment(sqlite_engine, settings.group_id, Vault())
    kafka.write(settings.dead_letter_topic, [b"x" * 3000, b"x"], headers=headers_of(kafka.topic(), "not_json"))
    places = search(settings, registry, 9, 0.0, None, lambda _: True).places
    with pytest.raises(WebhooksError, match="Kafka refuses the record"):
        list(publish_many(Changes(registry, "anna"), settings, places))
    assert search(settings, registry, 9, 0.0, None, lambda _: True).published == 1
