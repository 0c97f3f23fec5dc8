"""Records that are not events are kept on the dead-letter topic, and hold up no other."""

import hashlib
import json

from tests.end_to_end.service_rig import Deployment, eventually
from tests.intake.raw_producer import BOMB, SMALL_READS, write_bomb
from tests.kafka_kit import Kafka, headers_of, read_all, unique

BAD: dict[str, list[bytes]] = {
    "empty": [b""],
    "not_utf8": [b'{"type": "a", "name": "\xff"}', b"\xff\xfe{\x00}\x00", b'{"type": "\xed\xa0\x80"}'],
    "not_json": [b"hello", b'{"type": "a"', b'{"type": "a", "n": NaN}', b'{"type": "\\ud800"}'],
    "not_object": [b"[1, 2]", b"17", b"null", b'"text"'],
    "too_deep": [b'{"a":' * 100_000 + b"1" + b"}" * 100_000],
    "bad_type": [b'{"type": 5}', b'{"type": "two words"}', '{"type": "ü"}'.encode(), b'{"type": ""}'],
    "too_large": [json.dumps({"type": "a", "filler": "x" * 1_500_000}).encode()],
}


def test_bad_records_are_dead_lettered_and_the_rest_is_delivered(deployment: Deployment, kafka_bootstrap: str) -> None:
    """Dead letters are whole, with position and reason in headers, or a stub with a digest if the topic refuses them.

    Tombstones are only counted.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    deployment.topic = kafka.topic(partitions=4, max_message_bytes="4000000")
    dead = kafka.topic()
    deployment.subscribe("a", "/good")
    places: dict[tuple[bytes | None, bytes | None], str] = {}
    for partition in range(4):
        deployment.write(None, partition=partition)
    for reason, values in BAD.items():
        for number, value in enumerate(values):
            deployment.publish(["a", "a", "a"])
            deployment.write(value, partition=number % 4, headers=[("trace", b"7")])
            places[_stored(value), str(number % 4).encode()] = reason
    deployment.write(b"anything", headers=[("event-type", b"two words")])
    places[b"anything", b"0"] = "bad_type"
    deployment.publish(["a"] * 10)
    worker = deployment.start(KAFKA_DEAD_LETTER_TOPIC=dead)
    eventually(lambda: not deployment.lag())
    letters = read_all(kafka_bootstrap, dead)
    assert worker.metric('webhooks_events_total{outcome="tombstone"}') == 4
    worker.stop()
    assert deployment.accepted() == deployment.expected()
    assert len(letters) == len(places)
    for letter in letters:
        headers = headers_of(letter)
        reason = places[letter.value(), headers["dead-letter-partition"]]
        assert headers["dead-letter-reason"] == reason.encode()
        assert headers["dead-letter-topic"] == deployment.topic.encode()
        assert headers["dead-letter-offset"].isdigit()
        assert headers["dead-letter-group"] == deployment.group.encode()
        assert letter.key() == b"key"
        if reason == "too_large":
            (whole,) = BAD[reason]
            assert headers["dead-letter-sha256"] == hashlib.sha256(whole).hexdigest().encode()
            assert headers["dead-letter-size"] == str(len(whole)).encode()


def test_a_partition_waits_for_the_dead_letter_topic(deployment: Deployment, kafka_bootstrap: str) -> None:
    """If it is missing or its limit too low, the offset stays below the bad record and /readyz says so. Events go on.

    Events delivered behind the bad record are stored in the commit's metadata: a restart does not repeat them.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    dead = unique("dead")
    deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 4)
    deployment.write(b"bad", partition=2)
    deployment.publish(["a"] * 40)
    settings = {
        "KAFKA_DEAD_LETTER_TOPIC": dead,
        "KAFKA_ALLOW_AUTO_CREATE_TOPICS": "false",
        "KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS": "300",
    }
    worker = deployment.start(**settings)
    eventually(lambda: "create it, or set KAFKA_DEAD_LETTER_TOPIC" in worker.unready_because())
    eventually(lambda: not deployment.missing())
    eventually(lambda: deployment.lag() == 11)
    assert deployment.committed()[2] == 1
    worker.stop()
    worker = deployment.start(**settings)
    eventually(lambda: "create it, or set KAFKA_DEAD_LETTER_TOPIC" in worker.unready_because())
    assert deployment.committed()[2] == 1

    kafka.topic(dead, max_message_bytes="10")
    eventually(lambda: "records wait until it takes them" in worker.unready_because())
    assert deployment.committed()[2] == 1
    kafka.configure(dead, max_message_bytes="500")
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    assert [letter.value() for letter in read_all(kafka_bootstrap, dead)] == [b"bad"]
    deployment.write(b"large and bad" * 10_000, partition=2)
    deployment.flush()
    eventually(lambda: not deployment.lag())
    worker.stop()
    bare = read_all(kafka_bootstrap, dead)[-1]
    assert bare.value() is None
    assert headers_of(bare)["dead-letter-size"] == b"130000"
    assert deployment.accepted() == deployment.expected()


def _stored(value: bytes) -> bytes:
    """The dead letter's value, on a topic with the usual limit of 1 MiB."""
    return value[: 64 * 1024] if len(value) > 1024 * 1024 else value


def test_a_batch_that_cannot_be_decompressed_holds_up_nothing(deployment: Deployment, kafka_bootstrap: str) -> None:
    """A stub of each of its records is kept with the reason. Later records are delivered, also after a restart."""
    dead = Kafka(kafka_bootstrap, real=True).topic()
    deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 8)
    write_bomb(kafka_bootstrap, deployment.topic, [b'{"type":"a"}', BOMB])
    deployment.publish(["a"] * 8)
    small = {f"KAFKA_{name.upper()}": value for name, value in SMALL_READS.items()}
    worker = deployment.start(KAFKA_DEAD_LETTER_TOPIC=dead, **small)
    eventually(lambda: not deployment.missing() and not deployment.lag())
    letters = [headers_of(letter) for letter in read_all(kafka_bootstrap, dead)]
    assert [(each["dead-letter-reason"], each["dead-letter-offset"]) for each in letters] == [
        (b"unreadable", b"2"),
        (b"unreadable", b"3"),
    ]
    eventually(worker.ready)
    worker.stop()
    deployment.publish(["a"] * 4)
    deployment.start(KAFKA_DEAD_LETTER_TOPIC=dead, **small)
    eventually(lambda: not deployment.missing() and not deployment.lag())
    assert len(read_all(kafka_bootstrap, dead)) == len(letters)
    assert not deployment.duplicates()
