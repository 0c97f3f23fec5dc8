"""The newest records of a topic, and the dead letters among them, on the mock cluster."""

import pytest

from consumer.ops import tail
from consumer.ops.dead_letters import recent
from consumer.ops.tail import newest
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
    (letter,) = recent(settings, 1)
    assert (letter.size, letter.lacking is not None) == (size, cut)


def test_the_newest_of_large_records_are_shown(mock_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are left out if all together are too large, and one record is shown however large it is."""
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    for partition in range(2):
        kafka.write(topic, [b"%d" % number * 1000 for number in range(10)], partition=partition)

    def shown(most_bytes: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(tail, "MOST_BYTES", most_bytes)
        return sorted((each.partition.number, each.offset) for each in newest(kafka.settings(), topic, 5, partition))

    for partition in range(2):
        assert shown(3500) == [(partition, offset) for offset in (7, 8, 9)]
    assert shown(500) == [(1, 9)]
