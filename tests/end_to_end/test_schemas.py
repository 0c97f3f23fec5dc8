"""Records in Avro, Protobuf and JSON Schema, a registry, and its outage: the whole path on a real Kafka."""

import json
import struct
from typing import Any

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.test_bad_records import headers_of, read_all
from tests.kafka_kit import Kafka
from tests.schemas.orders import as_json, serializers
from tests.schemas.registry_server import schema_registry

USER, PASSWORD = "webhooks", "secret-of-the-registry"
UNKNOWN = struct.pack(">bI", 0, 4711) + b"\x00\xff"


def received(deployment: Deployment, path: str) -> list[dict[str, Any]]:
    """The bodies that a path has accepted."""
    return [json.loads(each.body) for each in deployment.receiver.at(path) if each.accepted]


def test_records_with_schemas_arrive_as_json_through_an_outage_of_the_registry(
    deployment: Deployment, command_line: CommandLine, kafka_bootstrap: str
) -> None:
    """While the registry is down, another topic goes on, nothing is committed or given up; then all arrives in order.

    What names an unknown schema is kept as it was, with the reason. A replay decodes as the workers do. Nothing prints
    the password.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    dead, other = kafka.topic(), kafka.topic()
    deployment.subscribe("order.paid", "/orders")
    deployment.subscribe("plain", "/plain")
    with schema_registry(USER, PASSWORD) as registry:
        userinfo = registry.url.replace("http://", f"http://{USER}:{PASSWORD}@")
        values = []
        with serializers(userinfo) as in_front, serializers(userinfo, in_header=True) as in_header:
            for number, name in enumerate(["avro", "protobuf", "json"] * 4):
                headers: list[tuple[str, bytes | None]] = []
                form = in_header if number % 2 else in_front
                values.append((form[name](deployment.topic, number, headers), headers))
        registry.down = True
        for number, (value, headers) in enumerate(values):
            deployment.write(value, partition=number % 3, headers=headers)
        deployment.flush()
        settings = {
            "KAFKA_TOPICS": f"{deployment.topic},{other}",
            "KAFKA_DEAD_LETTER_TOPIC": dead,
            "SCHEMA_REGISTRY_URL": registry.url,
            "SCHEMA_REGISTRY_USER": USER,
            "SCHEMA_REGISTRY_PASSWORD": PASSWORD,
        }
        worker = deployment.start(**settings)
        eventually(lambda: "check SCHEMA_REGISTRY_URL; 3 partitions wait for schemas" in worker.unready_because())
        status, output, _ = command_line.run("check", **settings)
        assert status == 1
        assert "✗ schema registry: schema registry at 127.0.0.1" in output
        kafka.write(other, [b'{"type": "plain", "n": %d}' % number for number in range(50)])
        eventually(lambda: len(received(deployment, "/plain")) == 50)
        assert not received(deployment, "/orders")
        assert deployment.lag() == len(values)
        assert read_all(kafka_bootstrap, dead) == []

        registry.down = False
        eventually(lambda: len(received(deployment, "/orders")) == len(values))
        deployment.write(UNKNOWN, headers=[("trace", b"7")])
        deployment.write(values[0][0])
        deployment.flush()
        eventually(lambda: not deployment.lag())
        eventually(worker.ready)
        letters = read_all(kafka_bootstrap, dead)
        worker.stop()

        orders = received(deployment, "/orders")
        assert sorted(each["id"] for each in orders) == sorted([*range(len(values)), 0])
        for partition in range(3):
            ids = [each["id"] for each in orders[: len(values)] if each["id"] % 3 == partition]
            assert ids == sorted(ids)
        assert [each for each in orders if each["id"] == 3] == [as_json(3)]
        assert {each["tags"][0] for each in orders if each["id"] % 3 == 1} == {"new"}
        ids = {each.webhook_id for each in deployment.receiver.at("/orders")}
        assert len(ids) == len(orders)
        (letter,) = letters
        assert letter.value() == UNKNOWN
        found = headers_of(letter)
        assert (found["dead-letter-reason"], found["trace"]) == (b"unknown_schema", b"7")
        assert b"has no schema 4711" in found["dead-letter-detail"]

        late = deployment.subscribe("order.paid", "/late")
        replay = ["replay", "--subscription", str(late), "--since", "1h", "--yes", "--no-wait"]
        status, output, errors = command_line.run(*replay, **{**settings, "KAFKA_TOPICS": deployment.topic})
        assert status == 0, errors
        assert f"{len(orders)} matching records stored" in output
        assert "1 record skipped: not an event" in errors
        worker = deployment.start(**settings)
        eventually(lambda: len(received(deployment, "/late")) == len(orders))
        worker.stop()
        assert {each.webhook_id for each in deployment.receiver.at("/late")} == ids
        status, output, _ = command_line.run("check", **settings)
        assert "✓ schema registry: schema registry at 127.0.0.1" in output
    printed = "".join(each.log for each in deployment.workers)
    assert PASSWORD not in printed + output + errors
