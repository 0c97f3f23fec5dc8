"""Records that are not events, on a real Kafka: its limits of size, its compression, its dead-letter topic."""

import hashlib
import json

from tests.end_to_end.service_rig import Deployment
from tests.intake.raw_producer import BOMB, SMALL_READS, write_bomb
from tests.kafka_kit import Kafka, headers_of, read_all
from tests.waiting import eventually

LARGE = json.dumps({"type": "a", "filler": "x" * 1_500_000}).encode()
BAD = {
    "empty": b"",
    "not_utf8": b"\xff\xfe{\x00}\x00",
    "not_json": b'{"type": "a"',
    "not_object": b"[1, 2]",
    "too_deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "bad_type": b'{"type": "two words"}',
    "too_large": LARGE,
}


def test_bad_records_are_dead_lettered_and_the_rest_is_delivered(deployment: Deployment, kafka_bootstrap: str) -> None:
    """Dead letters are whole, with position and reason in headers, or a stub with a digest if the topic refuses them.

    Tombstones are only counted.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    deployment.topic = kafka.topic(partitions=4, max_message_bytes="4000000")
    dead = kafka.topic()
    deployment.subscribe("a", "/good")
    for number, value in enumerate(BAD.values()):
        deployment.write(value, partition=number % 4, headers=[("trace", b"7")])
        deployment.publish(["a", "a", "a"])
    deployment.write(None)
    deployment.flush()
    worker = deployment.start(KAFKA_DEAD_LETTER_TOPIC=dead)
    eventually(lambda: not deployment.lag())
    letters = {headers_of(each)["dead-letter-reason"].decode(): each for each in read_all(kafka_bootstrap, dead)}
    assert worker.metric('webhooks_events_total{outcome="tombstone"}') == 1
    worker.stop()
    assert deployment.accepted() == deployment.expected()
    assert letters.keys() == BAD.keys()
    for number, (reason, value) in enumerate(BAD.items()):
        headers = headers_of(letters[reason])
        assert letters[reason].key() == b"key"
        assert letters[reason].value() == (value[: 64 * 1024] if value is LARGE else value)
        assert headers["dead-letter-partition"] == str(number % 4).encode()
        assert headers["trace"] == b"7"
    assert headers["dead-letter-sha256"] == hashlib.sha256(LARGE).hexdigest().encode()


def test_a_batch_that_cannot_be_decompressed_holds_up_nothing(deployment: Deployment, kafka_bootstrap: str) -> None:
    """A stub of each of its records is kept with the reason. Later records are delivered, also after a restart."""
    dead = Kafka(kafka_bootstrap, real=True).topic()
    deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 8)
    write_bomb(kafka_bootstrap, deployment.topic, [b'{"type":"a"}', BOMB])
    deployment.publish(["a"] * 8)
    settings = {f"KAFKA_{name.upper()}": value for name, value in SMALL_READS.items()}
    settings["KAFKA_DEAD_LETTER_TOPIC"] = dead
    worker = deployment.start(**settings)
    eventually(deployment.finished)
    letters = [headers_of(letter) for letter in read_all(kafka_bootstrap, dead)]
    assert [(each["dead-letter-reason"], each["dead-letter-offset"]) for each in letters] == [
        (b"unreadable", b"2"),
        (b"unreadable", b"3"),
    ]
    eventually(worker.ready)
    worker.stop()
    deployment.publish(["a"] * 4)
    deployment.start(**settings)
    eventually(deployment.finished)
    assert len(read_all(kafka_bootstrap, dead)) == len(letters)
    assert not deployment.duplicates()
