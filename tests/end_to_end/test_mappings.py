"""Topics of producers that cannot change: a file of mappings, and compacted topics with tombstones."""

import json
from collections import Counter
from pathlib import Path

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, eventually
from tests.intake.test_mapping_examples import ENVELOPE, KEY, ROW, change, enveloped
from tests.kafka_kit import Kafka, unique
from tests.processes import ROOT

ROWS = 40


def test_change_events_with_tombstones(
    deployment: Deployment, command_line: CommandLine, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Debezium's events reach each receiver by table and operation. Tombstones are counted, and no lag is left.

    A replay sends the same ids again, and `explain` names them beforehand.
    """
    prefix = unique("shop")
    deployment.topic = Kafka(kafka_bootstrap, real=True).topic(
        f"{prefix}.public.customers", partitions=4, cleanup_policy="compact"
    )
    example = (ROOT / "docs/mappings/debezium-changes.toml").read_text()
    file = tmp_path / "mappings.toml"
    file.write_text(example.replace('"shop.public.*"', f'"{prefix}.public.*"'))
    settings = {"KAFKA_MAPPINGS_FILE": str(file), "KAFKA_TOPICS": deployment.topic}
    for each in ("created", "updated", "deleted"):
        deployment.subscribe(f"customers.{each}", f"/{each}")
    every = deployment.subscribe("customers.*", "/every")
    for number in range(ROWS):
        row, key = ROW | {"id": number}, {"id": number}
        values = [change("c", None, row), change("u", row, row), change("d", row, None), None]
        for value in values:
            with_schema = number % 2 and value is not None
            body = enveloped(ENVELOPE, value) if with_schema else value
            deployment.write(
                None if body is None else json.dumps(body).encode(),
                partition=number % 4,
                key=json.dumps(enveloped(KEY, key) if with_schema else key).encode(),
            )
    deployment.flush()
    worker = deployment.start(**settings)
    eventually(lambda: len(deployment.receiver.at("/every")) == 3 * ROWS)
    eventually(lambda: not deployment.lag())
    assert worker.metric('webhooks_events_total{outcome="tombstone"}') == ROWS
    assert worker.metric('webhooks_events_total{outcome="dead_lettered"}') == 0
    assert sum(deployment.committed().values()) == 4 * ROWS
    for each in ("created", "updated", "deleted"):
        requests = deployment.receiver.at(f"/{each}")
        assert {request.headers["x-webhook-event"] for request in requests} == {f"customers.{each}"}
        assert sorted(json.loads(request.body)["id"] for request in requests) == list(range(ROWS))
    ids = Counter(request.headers["webhook-id"] for request in deployment.receiver.at("/every"))
    assert set(ids.values()) == {1}

    status, shown, _ = command_line.run(
        "explain", deployment.topic, "--partition", "3", "--offset", "0", "--json", **settings
    )
    told = json.loads(shown)
    assert (status, told["event"]["type"]) == (0, "customers.created")
    assert told["event"]["webhook_id"] in ids
    assert {each["id"] for each in told["subscriptions"] if each["gets"]} == {1, every}

    words = ["replay", "--subscription", str(every), "--since", "1h", "--rate", "1000", "--yes"]
    status, said, errors = command_line.run(*words, **settings)
    assert (status, f"{3 * ROWS} matching records stored" in said) == (0, True), said + errors
    again = Counter(request.headers["webhook-id"] for request in deployment.receiver.at("/every"))
    assert again == ids + ids
    worker.stop()
