"""Forty subscriptions with different options, made by plain SQL, and the same few events for all of them."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from hmac import digest
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from tests.end_to_end.deployed_database import ON_EACH_DATABASE, SqliteDatabase
from tests.end_to_end.service_rig import SECRET, Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, Request, always
from tests.kafka_kit import QUIET, Kafka, unique

OWN, NEWER = "whsec_" + b64encode(b"own" * 11).decode(), "whsec_" + b64encode(b"newer" * 7).decode()
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PRIVATE_TEXT = "whsk_" + b64encode(b"\x07" * 32).decode()
ENCRYPTION_KEY = Fernet.generate_key().decode()
LABEL = re.compile(rb"label-([a-z]+)")
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


class Published(NamedTuple):
    """An event, identified by the label in its body."""

    label: str
    body: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    second_topic: bool = False


def plain(label: str, event_type: str, **more: object) -> Published:
    return Published(label, json.dumps({"type": event_type, "label": f"label-{label}", **more}).encode())


def tenanted(label: str, tenant: bytes) -> Published:
    return plain(label, "user.created")._replace(headers=[("tenant", tenant)])


PAID = [
    ("ce_type", b"invoice.paid"),
    ("ce_id", b"inv-7"),
    ("ce_source", b"/billing"),
    ("ce_subject", b"customer/9"),
    ("ce_time", b"2026-11-01T10:00:00Z"),
    ("ce_tenant", b"acme"),
    ("ce_region", "süd".encode()),
    ("content-type", b"application/json"),
]
EVENTS = (
    plain("dear", "order.created", amount=250, items=[{"sku": "a", "n": 1}, {"sku": "b", "n": 3}]),
    plain("cheap", "order.created", amount=50, items=[]),
    plain("item", "order.item.added"),
    plain("deep", "order.item.price.changed"),
    tenanted("acme", b"acme"),
    tenanted("globex", b"globex"),
    plain("nobody", "user.created"),
    Published("paid", b'{"total": 12.5, "label": "label-paid"}', PAID),
    Published(
        "sent",
        json.dumps(
            {
                "specversion": "1.0",
                "type": "invoice.sent",
                "id": "inv-8",
                "source": "/billing",
                "tenant": "globex",
                "data": {"label": "label-sent", "total": 3},
            }
        ).encode(),
        [("content-type", b"application/cloudevents+json")],
    ),
    Published("text", b"label-text, as it is", [("event-type", b"note"), ("content-type", b"text/plain")]),
    plain("elsewhere", "order.created", amount=1)._replace(second_topic=True),
)
ORDERS = {"dear", "cheap", "elsewhere"}
ALL = {event.label for event in EVENTS}
BODIES = {event.label: event.body for event in EVENTS}
TYPES = {"dear": "order.created", "cheap": "order.created", "elsewhere": "order.created"}

Check = Callable[[Request], None]


def as_it_came(request: Request) -> None:
    assert request.body == BODIES[only_label(request)]
    with nullcontext() if request.body.startswith(b"{") else pytest.raises(json.JSONDecodeError):  # once it is verified
        Webhook(SECRET).verify(request.body, request.headers)
    expected = digest(b64decode(SECRET.removeprefix("whsec_")), request.body, "sha256").hex()
    assert request.headers["x-webhook-signature"] == expected


def only_label(request: Request) -> str:
    (label,) = labels(request)
    return label


def labels(request: Request) -> list[str]:
    return [label.decode() for label in LABEL.findall(request.body)]


def signed_by(*secrets: str, not_by: str = SECRET) -> Check:
    def check(request: Request) -> None:
        for secret in secrets:
            Webhook(secret).verify(request.body, request.headers)
            SvixWebhook(secret).verify(
                request.body,
                {f"svix-{name}": request.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")},
            )
        assert request.headers["webhook-signature"].count("v1,") == len(secrets)
        with pytest.raises(Exception, match="signature"):
            Webhook(not_by).verify(request.body, request.headers)

    return check


def ed25519(number_of_v1: int) -> Check:
    def check(request: Request) -> None:
        signatures = request.headers["webhook-signature"].split(" ")
        (asymmetric,) = (text.removeprefix("v1a,") for text in signatures if text.startswith("v1a,"))
        message = f"{request.webhook_id}.{request.headers['webhook-timestamp']}.".encode() + request.body
        PRIVATE.public_key().verify(b64decode(asymmetric), message)
        assert sum(text.startswith("v1,") for text in signatures) == number_of_v1
        assert ("x-webhook-signature" in request.headers) == bool(number_of_v1)

    return check


def hub(request: Request) -> None:
    key = b64decode(SECRET.removeprefix("whsec_"))
    assert request.headers["x-hub-signature-256"] == "sha256=" + digest(key, request.body, "sha256").hex()
    assert "x-webhook-signature" not in request.headers


def no_hex(request: Request) -> None:
    assert "x-webhook-signature" not in request.headers
    Webhook(SECRET).verify(request.body, request.headers)


def has_headers(**expected: str) -> Check:
    named = {name.replace("_", "-"): value for name, value in expected.items()}

    def check(request: Request) -> None:
        assert {name: request.headers.get(name) for name in named} == named

    return check


def has_body(expected: Mapping[str, Any], content_type: str = "application/json") -> Check:
    """Checks the JSON of each label's request; a value of None must exist and is not compared."""

    def check(request: Request) -> None:
        Webhook(SECRET).verify(request.body, request.headers)
        wanted = expected[only_label(request)]
        body = json.loads(request.body)
        if isinstance(wanted, dict):
            assert body.keys() == wanted.keys()
            body = {name: None if wanted[name] is None else value for name, value in body.items()}
        assert body == wanted
        assert request.headers["content-type"] == content_type

    return check


def has_array(content_type: str, most: int, keys: set[str] | None = None) -> Check:
    def check(request: Request) -> None:
        Webhook(SECRET).verify(request.body, request.headers)
        members = json.loads(request.body)
        assert isinstance(members, list)
        assert 1 <= len(members) <= most
        assert request.headers["content-type"] == content_type
        for member in members:
            assert keys is None or keys <= member.keys()

    return check


class Encrypted(str):
    """A secret that is stored encrypted."""

    __slots__ = ()


class Asked(NamedTuple):
    """A subscription: columns, secrets (kind, text, expiry), the events it must get, and a check of their form."""

    event_type: str
    wants: set[str]
    check: Check = as_it_came
    columns: Mapping[str, str | float] = {}
    secrets: Sequence[tuple[str, str, datetime | None]] = ()


DEAR = json.loads(BODIES["dear"])
CLOUD_KEYS = {"specversion", "id", "source", "type", "time", "datacontenttype", "data"}


def asked(first_topic: str, second_topic: str) -> dict[str, Asked]:
    """The subscriptions by the last part of their paths."""
    return {
        # Matching.
        "exact": Asked("order.created", ORDERS),
        "one-level": Asked("order.*", ORDERS),
        "any-depth": Asked("order.**", ORDERS | {"item", "deep"}),
        "any-depth-below": Asked("order.item.**", {"item", "deep"}),
        "all": Asked("*", ALL),
        "of-a-tenant": Asked("user.created", {"acme"}, columns={"tenant": "acme"}),
        "all-of-a-tenant": Asked("*", {"globex", "sent"}, columns={"tenant": "globex"}),
        "of-any-tenant": Asked("user.*", {"acme", "globex", "nobody"}),
        "of-no-known-tenant": Asked("*", set(), columns={"tenant": "initech"}),
        "filtered": Asked("order.created", {"dear"}, columns={"event_filter": "data.amount > 100"}),
        "filtered-by-tenant": Asked("*", {"acme", "paid"}, columns={"event_filter": 'tenant == "acme"'}),
        "filtered-by-attributes": Asked(
            "invoice.*",
            {"paid"},
            columns={
                "event_filter": 'source == "/billing" && subject.startsWith("customer/") && '
                'extensions.region == "süd" && time < timestamp("2026-11-02T00:00:00Z")'
            },
        ),
        "filter-that-fails": Asked("order.created", set(), columns={"event_filter": "data.missing.deeper > 1"}),
        "filter-that-is-none": Asked("order.created", set(), columns={"event_filter": "data.amount >"}),
        "of-one-topic": Asked("order.created", {"elsewhere"}, columns={"topics": second_topic}),
        "of-two-topics": Asked("order.created", ORDERS, columns={"topics": f"{first_topic}, {second_topic}"}),
        # Signing.
        "own-secret": Asked("order.created", ORDERS, signed_by(OWN), secrets=[("signing", OWN, None)]),
        "two-secrets": Asked(
            "order.created",
            ORDERS,
            signed_by(OWN, NEWER),
            secrets=[("signing", OWN, TOMORROW), ("signing", NEWER, None)],
        ),
        "expired-secret": Asked(
            "order.created",
            ORDERS,
            signed_by(NEWER, not_by=OWN),
            secrets=[("signing", OWN, YESTERDAY), ("signing", NEWER, None)],
        ),
        "encrypted-secret": Asked(
            "order.created",
            ORDERS,
            signed_by(OWN),
            secrets=[("signing", Encrypted(OWN), None)],
        ),
        "ed25519": Asked("order.created", ORDERS, ed25519(0), secrets=[("signing", PRIVATE_TEXT, None)]),
        "both-kinds": Asked(
            "order.created",
            ORDERS,
            ed25519(1),
            secrets=[("signing", PRIVATE_TEXT, None), ("signing", OWN, None)],
        ),
        "hub-signature": Asked(
            "order.created",
            ORDERS,
            hub,
            columns={"signature_header": "X-Hub-Signature-256", "signature_prefix": "sha256="},
        ),
        "no-hex": Asked("order.created", ORDERS, no_hex, columns={"signature_header": "none"}),
        # Payloads.
        "standard": Asked(
            "order.created",
            ORDERS,
            has_body(
                {
                    label: {"type": "order.created", "timestamp": None, "data": json.loads(BODIES[label])}
                    for label in ORDERS
                }
            ),
            columns={"payload_format": "standard"},
        ),
        "cloudevents": Asked(
            "invoice.*",
            {"paid", "sent"},
            has_body(
                {
                    "paid": {
                        "specversion": "1.0",
                        "id": "inv-7",
                        "source": "/billing",
                        "type": "invoice.paid",
                        "subject": "customer/9",
                        "time": "2026-11-01T10:00:00Z",
                        "tenant": "acme",
                        "region": "süd",
                        "datacontenttype": "application/json",
                        "data": {"total": 12.5, "label": "label-paid"},
                    },
                    "sent": {
                        "specversion": "1.0",
                        "id": "inv-8",
                        "source": "/billing",
                        "type": "invoice.sent",
                        "tenant": "globex",
                        "data": {"label": "label-sent", "total": 3},
                    },
                },
                "application/cloudevents+json",
            ),
            columns={"payload_format": "cloudevents"},
        ),
        "cloudevents-of-text": Asked(
            "note",
            {"text"},
            has_body(
                {"text": dict.fromkeys(CLOUD_KEYS) | {"data": "label-text, as it is", "datacontenttype": "text/plain"}},
                "application/cloudevents+json",
            ),
            columns={"payload_format": "cloudevents"},
        ),
        "projected": Asked(
            "order.created",
            {"dear"},
            has_body({"dear": {"label": "label-dear", "skus": ["a", "b"], "double": 500.0}}),
            columns={
                "projection": '{"label": data.label, "skus": data.items.map(i, i.sku), '
                '"double": double(data.amount) * 2.0}',
                "event_filter": "data.amount > 100",
            },
        ),
        "projected-envelope": Asked(
            "order.created",
            ORDERS,
            has_body(
                {label: {"type": "order.created", "timestamp": None, "data": f"label-{label}"} for label in ORDERS}
            ),
            columns={"payload_format": "standard", "projection": "data.label"},
        ),
        "projection-that-fails": Asked("order.created", set(), columns={"projection": "data.missing"}),
        # Batches.
        "batch": Asked(
            "order.**",
            ORDERS | {"item", "deep"},
            has_array("application/json", 3, {"label", "type"}),
            columns={"batch_size": 3, "batch_wait_ms": 400},
        ),
        "cloudevents-batch": Asked(
            "*",
            ALL,
            has_array("application/cloudevents-batch+json", 100, CLOUD_KEYS - {"datacontenttype", "time"}),
            columns={"batch_size": 100, "payload_format": "cloudevents"},
        ),
        # Requests.
        "headers": Asked(
            "order.created",
            ORDERS,
            has_headers(x_team="orders", user_agent="our-own"),
            columns={"custom_headers": '{"X-Team": "orders", "User-Agent": "our-own"}'},
        ),
        "secret-header": Asked(
            "order.created",
            ORDERS,
            has_headers(x_api_key="key-of-the-api"),
            secrets=[("header", "X-Api-Key: key-of-the-api", None)],
        ),
        "basic": Asked(
            "order.created",
            ORDERS,
            has_headers(authorization="Basic " + b64encode("me:pä:ss".encode()).decode()),
            secrets=[("basic", "me:pä:ss", None)],
        ),
        "bearer": Asked(
            "order.created",
            ORDERS,
            has_headers(authorization="Bearer token-2"),
            secrets=[
                ("bearer", "token-1", None),
                ("bearer", Encrypted("token-2"), None),
            ],
        ),
        "header-that-is-refused": Asked("order.created", set(), columns={"custom_headers": '{"Host": "evil"}'}),
        "timeout": Asked("order.created", set(), columns={"timeout_seconds": 0.3, "retry_schedule": "1h"}),
        "limits": Asked(
            "order.created",
            ORDERS,
            columns={"max_in_flight": 1, "rate_limit": 5, "ordering": "key"},
        ),
        "final": Asked("order.created", set(), columns={"final_statuses": "422", "retry_schedule": "1h"}),
    }


@ON_EACH_DATABASE
def test_each_of_forty_subscriptions_gets_what_it_asked_for(deployment: Deployment) -> None:
    """Each gets exactly its events in the requested form. A broken one is left out and affects no other."""
    second = Kafka(deployment.servers, real=True).topic(unique("second"), partitions=4)
    asks = asked(deployment.topic, second)
    assert len(asks) == 40
    ids = {name: _subscribe(deployment, name, wanted) for name, wanted in asks.items()}
    deployment.receiver.rules["/timeout"] = always(Answer(200, delay=2))
    deployment.receiver.rules["/final"] = always(Answer(422))
    worker = deployment.start(
        KAFKA_TOPICS=f"{deployment.topic},{second}", WEBHOOK_ENCRYPTION_KEY=ENCRYPTION_KEY, LOG_LEVEL="DEBUG"
    )
    _publish(deployment, second)
    with suppress(AssertionError):
        eventually(lambda: not _missing(deployment, asks), 20)
    assert _missing(deployment, asks) == {}
    eventually(lambda: not deployment.lag(), 30)
    worker.stop()
    for name, wanted in asks.items():
        if name != "timeout":  # that one is answered, but too late
            assert _received(deployment, name) == wanted.wants, name
            for request in _accepted(deployment, name):
                wanted.check(request)
    rows = {
        name: [(row.status, row.last_status, row.last_error) for row in deployment.rows() if row.subscription_id == id_]
        for name, id_ in ids.items()
    }
    orders = len(ORDERS)
    assert {name for name, of in rows.items() if of} == {
        "filter-that-is-none",
        "header-that-is-refused",
        "projection-that-fails",
        "timeout",
        "final",
    }
    assert [row[0] for row in rows["filter-that-is-none"]] == ["parked"] * orders
    assert [row[0] for row in rows["header-that-is-refused"]] == ["parked"] * orders
    assert [row[0] for row in rows["projection-that-fails"]] == ["exhausted"] * orders
    assert [row[:2] for row in rows["timeout"]] == [("parked", None)] * orders
    assert all("time-out" in str(row[2]) for row in rows["timeout"])
    assert [row[:2] for row in rows["final"]] == [("exhausted", 422)] * orders
    for secret in (OWN, NEWER, PRIVATE_TEXT, "token-1", "token-2", "pä:ss", "key-of-the-api"):
        assert secret not in worker.log


def _subscribe(deployment: Deployment, name: str, wanted: Asked) -> int:
    subscription_id = deployment.subscribe(wanted.event_type, f"/{name}", None, **wanted.columns)
    encrypt = Fernet(ENCRYPTION_KEY).encrypt
    for kind, secret, expires_at in wanted.secrets:
        token = f"fernet:{encrypt(f'{subscription_id}:{kind}:{secret}'.encode()).decode()}"
        deployment.sql(
            "INSERT INTO webhook_secrets (subscription_id, kind, secret, expires_at) VALUES (?, ?, ?, ?)",
            *(
                subscription_id,
                kind,
                token if isinstance(secret, Encrypted) else secret,
                expires_at and _bound(deployment, expires_at),
            ),
        )
    return subscription_id


def _publish(deployment: Deployment, second_topic: str) -> None:
    producer = Producer({"bootstrap.servers": deployment.servers, **QUIET})
    for event in EVENTS:
        topic = second_topic if event.second_topic else deployment.topic
        producer.produce(topic, event.body, b"key", headers=list(event.headers))
    assert producer.flush(30) == 0


def _accepted(deployment: Deployment, name: str) -> list[Request]:
    return [request for request in deployment.receiver.at(f"/{name}") if request.accepted]


def _received(deployment: Deployment, name: str) -> set[str]:
    return {label for request in _accepted(deployment, name) for label in labels(request)}


def _missing(deployment: Deployment, asks: Mapping[str, Asked]) -> dict[str, set[str]]:
    missing = {name: wanted.wants - _received(deployment, name) for name, wanted in asks.items()}
    return {name: wanted for name, wanted in missing.items() if wanted}


def _bound(deployment: Deployment, moment: datetime) -> object:
    """The value as the database's own driver accepts it."""
    naive = moment.replace(tzinfo=None)
    return str(naive) if isinstance(deployment.database, SqliteDatabase) else naive
