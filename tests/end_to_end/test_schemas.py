"""Records in Avro, Protobuf and JSON Schema, a registry and its outage: the whole path on a real Kafka."""

import json
import struct
from typing import Any

from confluent_kafka import Message

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, eventually
from tests.kafka_kit import Kafka, headers_of, read_all
from tests.schemas.orders import as_json, serializers
from tests.schemas.registry_server import SchemaRegistry, schema_registry

USER, PASSWORD = "webhooks", "secret-of-the-registry"
ORDERS = 12
UNKNOWN = struct.pack(">bI", 0, 4711) + b"\x00\xff"


def received(deployment: Deployment, path: str) -> list[dict[str, Any]]:
    """The bodies that a path has accepted."""
    return [json.loads(each.body) for each in deployment.receiver.at(path) if each.accepted]


def ids(deployment: Deployment, path: str) -> set[str]:
    """The ids of the requests at a path."""
    return {each.webhook_id for each in deployment.receiver.at(path)}


def publish(deployment: Deployment, registry: SchemaRegistry) -> None:
    """Publishes orders in each format on each of three partitions, with the id in front or the GUID in a header."""
    url = registry.url.replace("http://", f"http://{USER}:{PASSWORD}@")
    with serializers(url) as in_front, serializers(url, in_header=True) as in_header:
        for number in range(ORDERS):
            headers: list[tuple[str, bytes | None]] = []
            form = in_header if number % 2 else in_front
            serialize = list(form.values())[number // 3 % 3]
            deployment.write(serialize(deployment.topic, number, headers), partition=number % 3, headers=headers)
    deployment.flush()


def test_records_with_schemas_arrive_as_json_through_an_outage_of_the_registry(
    deployment: Deployment, command_line: CommandLine, kafka_bootstrap: str
) -> None:
    """Meanwhile another topic goes on, and no record is committed or dead-lettered; then all arrive in order.

    A record with an unknown schema id is kept unchanged, with the reason. A replay decodes like the workers. Nothing
    prints the password.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    dead, other = kafka.topic(), kafka.topic()
    deployment.subscribe("order.paid", "/orders")
    deployment.subscribe("plain", "/plain")
    with schema_registry(USER, PASSWORD) as registry:
        publish(deployment, registry)
        registry.down = True
        settings = {
            "KAFKA_TOPICS": f"{deployment.topic},{other}",
            "KAFKA_DEAD_LETTER_TOPIC": dead,
            "SCHEMA_REGISTRY_URL": registry.url,
            "SCHEMA_REGISTRY_USER": USER,
            "SCHEMA_REGISTRY_PASSWORD": PASSWORD,
        }
        worker = deployment.start(**settings)
        eventually(lambda: "check SCHEMA_REGISTRY_URL; 3 partitions wait for schemas" in worker.unready_because())
        status, printed, _ = command_line.run("check", **settings)
        assert status == 1
        assert "✗ schema registry: schema registry at 127.0.0.1" in printed
        kafka.write(other, [b'{"type": "plain", "n": %d}' % number for number in range(50)])
        eventually(lambda: len(received(deployment, "/plain")) == 50)
        assert not received(deployment, "/orders")
        assert deployment.lag() == ORDERS
        assert read_all(kafka_bootstrap, dead) == []

        registry.down = False
        eventually(lambda: len(received(deployment, "/orders")) == ORDERS)
        deployment.write(UNKNOWN, headers=[("trace", b"7")])
        deployment.flush()
        eventually(lambda: not deployment.lag())
        eventually(worker.ready)
        worker.stop()
        assert_orders(received(deployment, "/orders"))
        assert len(ids(deployment, "/orders")) == ORDERS
        assert_kept(read_all(kafka_bootstrap, dead))
        printed += replay(deployment, command_line, settings)
        status, output, _ = command_line.run("check", **settings)
        assert "✓ schema registry: schema registry at 127.0.0.1" in output
    assert PASSWORD not in printed + output + "".join(each.log for each in deployment.workers)


def assert_orders(orders: list[dict[str, Any]]) -> None:
    """Each order arrived once, in the order of its partition, as JSON of its format."""
    assert sorted(each["id"] for each in orders) == list(range(ORDERS))
    for partition in range(3):
        numbers = [each["id"] for each in orders if each["id"] % 3 == partition]
        assert numbers == sorted(numbers)
    by_number = {each["id"]: each for each in orders}
    assert [by_number[number] for number in (0, 1, 11)] == [as_json(0), as_json(1), as_json(11)]
    assert by_number[4]["tags"] == ["new"]
    assert by_number[7] == {"id": 7, "type": "order.paid"}


def assert_kept(letters: list[Message]) -> None:
    """The dead-letter topic has only the record of an unknown schema, unchanged."""
    (letter,) = letters
    assert letter.value() == UNKNOWN
    headers = headers_of(letter)
    assert (headers["dead-letter-reason"], headers["trace"]) == (b"unknown_schema", b"7")
    assert b"has no schema 4711" in headers["dead-letter-detail"]


def replay(deployment: Deployment, command_line: CommandLine, settings: dict[str, str]) -> str:
    """Replays to a new subscription: the same events with the same ids. Returns the output."""
    late = deployment.subscribe("order.paid", "/late")
    words = ["replay", "--subscription", str(late), "--since", "1h", "--yes", "--no-wait"]
    status, output, errors = command_line.run(*words, **{**settings, "KAFKA_TOPICS": deployment.topic})
    assert status == 0, errors
    assert f"{ORDERS} matching records stored" in output
    assert "1 record skipped: not an event" in errors
    worker = deployment.start(**settings)
    eventually(lambda: len(received(deployment, "/late")) == ORDERS)
    worker.stop()
    assert ids(deployment, "/late") == ids(deployment, "/orders")
    return output + errors
