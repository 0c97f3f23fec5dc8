"""Each option of a subscription, set by plain SQL: what a real worker makes of the rows of each real database.

docs/subscriptions.md names the tests of each option's own rule.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.fernet import Fernet
from standardwebhooks import Webhook

from consumer.events.attempt import ANSWERED
from consumer.subscriptions.options import OPTIONS
from tests.end_to_end.deployed_database import ON_EACH_DATABASE
from tests.end_to_end.service_rig import SECRET, Deployment
from tests.end_to_end.webhook_receiver import Answer, Request, always
from tests.kafka_kit import Kafka, read_all, unique
from tests.waiting import eventually

OWN = "whsec_" + b64encode(b"own" * 11).decode()
ENCRYPTION_KEY = Fernet.generate_key().decode()
PAID = [("ce_type", b"invoice.paid"), ("ce_id", b"inv-7"), ("ce_source", b"/billing")]
# Type, content and headers, by label.
EVENTS: dict[str, tuple[str, dict[str, Any], Sequence[tuple[str, bytes | None]]]] = {
    "dear": ("order.created", {"amount": 250}, ()),
    "cheap": ("order.created", {"amount": 50}, ()),
    "item": ("order.item.added", {}, ()),
    "acme": ("user.created", {}, [("tenant", b"acme")]),
    "paid": ("invoice.paid", {}, PAID),
    "elsewhere": ("order.created", {"amount": 1}, ()),  # on a second topic
}
TRACE = "t-1"  # a header of each record
ORDERS = {"dear", "cheap", "elsewhere"}
FILLER = "x" * 500  # so that compressed bodies are smaller
BODIES = {label: {"type": kind, "label": label, "filler": FILLER, **more} for label, (kind, more, _) in EVENTS.items()}

Form = Callable[[Request, Any], bool]  # of a request and its body


def as_it_came(_: Request, body: Any) -> bool:
    return bool(body == BODIES[body["label"]])


class Asked(NamedTuple):
    """A subscription: columns, the events that it must get, and their form."""

    event_type: str
    gets: set[str]
    columns: Mapping[str, str | float] = {}
    form: Form = as_it_came


ASKED = {
    "exact": Asked("order.created", ORDERS, {"http_version": "1.1"}),
    "named": Asked("order.created", ORDERS, {"name": "Orders", "external_id": "crm-7", "metadata": '{"team": "shop"}'}),
    "any-depth": Asked("order.**", {*ORDERS, "item"}),
    "tenant": Asked("*", {"acme"}, {"tenant": "acme"}),
    "filtered": Asked("order.created", {"dear"}, {"event_filter": "data.amount > 100"}),
    "broken": Asked("order.created", set(), {"event_filter": "data.amount >"}),
    "topics": Asked("order.created", {"elsewhere"}, {"topics": "SECOND"}),
    "cloudevents": Asked(
        "invoice.*",
        {"paid"},
        {"payload_format": "cloudevents"},
        lambda _, body: (body["id"], body["source"], body["data"]["label"]) == ("inv-7", "/billing", "paid"),
    ),
    "projected": Asked(
        "order.created",
        {"dear"},
        {"projection": '{"label": data.label, "double": data.amount * 2}', "event_filter": "data.amount > 99"},
        lambda _, body: bool(body == {"label": "dear", "double": 500}),
    ),
    "batch": Asked(
        "order.**",
        {*ORDERS, "item"},
        {"batch_size": 3, "batch_wait_ms": 400},
        lambda _, body: 1 <= len(body) <= 3,
    ),
    "headers": Asked(
        "order.created",
        ORDERS,
        {
            "custom_headers": '{"X-Team": "orders"}',
            "signature_header": "X-Hub-Signature-256",
            "signature_prefix": "sha256=",
        },
        lambda request, _: (
            request.headers["x-team"] == "orders" and request.headers["x-hub-signature-256"].startswith("sha256=")
        ),
    ),
    "following": Asked(
        "order.created",
        ORDERS,
        {"method": "PUT", "header_expressions": '{"X-Label": "data.label"}', "pass_headers": "x-*"},
        lambda request, body: (request.headers["x-label"], request.headers["x-trace"]) == (body["label"], TRACE),
    ),
    "github": Asked(
        "order.created",
        ORDERS,
        {"signature_template": "github"},
        lambda request, _: request.headers["x-hub-signature-256"] == f"sha256={request.headers['x-webhook-signature']}",
    ),
    "answered": Asked("order.created", ORDERS, {"report_answer": "true", "answer_headers": "x-*"}),
    "compressed": Asked(
        "order.created", ORDERS, {"gzip_above": 0}, lambda request, _: request.headers["content-encoding"] == "gzip"
    ),
    "limited": Asked("order.created", ORDERS, {"max_in_flight": 1, "rate_limit": 5, "ordering": "key"}),
    "secrets": Asked(
        "order.created",
        ORDERS,
        form=lambda request, _: request.headers["authorization"] + request.headers["x-api-key"] == "Bearer t-2k-3",
    ),
    "timeout": Asked("order.created", set(), {"timeout_seconds": 0.3, "retry_schedule": "1h"}),
    "final": Asked("order.created", set(), {"final_statuses": "422"}),
}
SECRETS = {"signing": OWN, "bearer": "t-2", "header": "X-Api-Key: k-3"}  # of the subscription of that name


@ON_EACH_DATABASE
def test_each_subscription_gets_what_it_asked_for(deployment: Deployment) -> None:
    """Each gets exactly its events in the requested form. One that is broken or fails affects no other."""
    assert {"url", "event_type"}.union(*(each.columns for each in ASKED.values())) == OPTIONS.keys()
    second = Kafka(deployment.servers, real=True).topic(unique("second"), partitions=4)
    ids = {name: _subscribe(deployment, name, second) for name in ASKED}
    deployment.receiver.rules["/timeout"] = always(Answer(200, delay=2))
    deployment.receiver.rules["/final"] = always(Answer(422))
    deployment.receiver.rules["/answered"] = always(Answer(200, header="X-Reply: 7", body='{"taken": true}'))
    attempts = Kafka(deployment.servers, real=True).topic(unique("attempts"), partitions=4)
    worker = deployment.start(
        KAFKA_TOPICS=f"{deployment.topic},{second}",
        WEBHOOK_ENCRYPTION_KEY=ENCRYPTION_KEY,
        KAFKA_ATTEMPTS_TOPIC=attempts,
    )
    first = deployment.topic
    for label, (_, _, headers) in EVENTS.items():
        deployment.topic = second if label == "elsewhere" else first
        deployment.write(json.dumps(BODIES[label]).encode(), headers=[*headers, ("x-trace", TRACE.encode())])
    deployment.topic = first
    deployment.flush()
    eventually(lambda: not [name for name, asked in ASKED.items() if asked.gets - _received(deployment, name).keys()])
    eventually(lambda: not deployment.lag())
    worker.stop()
    for name, asked in ASKED.items():
        received = _received(deployment, name)
        assert received.keys() == asked.gets, name
        assert all(asked.form(request, body) for request, body in received.values()), name
    _answers_are_reported(Kafka(deployment.servers, real=True), attempts, ids["answered"])
    rows = {(row.subscription_id, row.status, row.last_status) for row in deployment.rows()}
    assert rows == {
        (ids["broken"], "parked", None),
        (ids["timeout"], "parked", None),
        (ids["final"], "exhausted", 422),
    }


def _answers_are_reported(kafka: Kafka, topic: str, subscription: int) -> None:
    """Each answer that the subscription got is in a record with the event's key, and nobody else's is."""
    found = []
    for partition in range(4):
        for message in read_all(kafka.servers, topic, partition):
            record = json.loads(message.value() or b"")
            if record["type"] == ANSWERED:
                assert message.key() == b"key"
                found.append(record["data"])
    assert {each["subscription_id"] for each in found} == {subscription}
    assert len({each["webhook_id"] for each in found}) == len(found) == len(ORDERS)
    assert all(
        (each["status"], each["headers"], each["body"]) == (200, {"x-reply": "7"}, '{"taken": true}') for each in found
    )


def _subscribe(deployment: Deployment, name: str, second_topic: str) -> int:
    columns = {key: second_topic if value == "SECOND" else value for key, value in ASKED[name].columns.items()}
    made = deployment.subscribe(ASKED[name].event_type, f"/{name}", None, **columns)
    for kind, secret in SECRETS.items() if name == "secrets" else ():
        token = Fernet(ENCRYPTION_KEY).encrypt(f"{made}:{kind}:{secret}".encode()).decode()
        statement = "INSERT INTO webhook_secrets (subscription_id, kind, secret) VALUES (?, ?, ?)"
        deployment.sql(statement, made, kind, f"fernet:{token}")
    return made


def _received(deployment: Deployment, name: str) -> dict[str, tuple[Request, Any]]:
    """The accepted and correctly signed requests with their bodies, by each label in them."""
    found = {}
    for request in deployment.receiver.at(f"/{name}"):
        if request.accepted and name != "timeout":  # that one is answered, but too late
            text = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
            Webhook(OWN if name == "secrets" else SECRET).verify(text, request.headers)
            body = json.loads(text)
            for each in body if isinstance(body, list) else [body]:
                found[each.get("label") or each["data"]["label"]] = request, body
    return found
