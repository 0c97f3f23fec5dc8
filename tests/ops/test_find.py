"""What a text names: in the database, among attempts, and in the log."""

import time
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.config.settings import SearchSettings
from consumer.crypto.vault import Vault
from consumer.errors import SettingsError
from consumer.events.attempt import Attempt
from consumer.intake.log_reader import LogReader
from consumer.ledger import replays
from consumer.ledger.replays import Span
from consumer.ops import find as module
from consumer.ops.changes import Deployment
from consumer.ops.find import Hit, fields_of, known, place_of, search, whole
from consumer.ops.replay_request import Log
from consumer.ops.walk import Bounds
from consumer.subscriptions import repository
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, make_event, park, parked

URL = "https://acme.example/hooks"


@pytest.fixture
def where(engine: Engine) -> Deployment:
    """A deployment."""
    return Deployment(engine, GROUP, Vault())


def ids(hits: list[Hit]) -> list[tuple[str, str, int | None]]:
    return [(each.kind, each.matched, each.id) for each in hits]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("orders[3]@1234", ("orders", 3, 1234)),
        ("orders[3] @ 1234", ("orders", 3, 1234)),
        ("shop.orders-v2/0/7", ("shop.orders-v2", 0, 7)),
        ("a:0:7", ("a", 0, 7)),
        ("orders", None),
        ("orders/3", None),
        ("10.0.0.1:80", None),
        ("https://a/1/2", None),
    ],
)
def test_a_place_is_written_in_some_ways(text: str, place: tuple[str, int, int] | None) -> None:
    """As the pages and the commands show it, as a path, or with colons."""
    assert place_of(text) == place


def test_the_database_is_searched_by_ids_and_names(engine: Engine, where: Deployment) -> None:
    """Each thing once, and of a tenant only what is its own."""
    first = repository.add(engine, URL, "order.paid", tenant="acme")
    second = repository.add(engine, "https://other.example/", "acme", tenant="other")
    park(engine, parked(make_event(0, tenant="acme"), first))
    replays.create(engine, GROUP, first, 0.0, 9.0, None, 1.0, [Span("t", 0, 0, 9)], 1.0)
    assert ids(known(where, "1")) == [("subscription", "id", first), ("delivery", "id", 1), ("replay", "id", 1)]
    assert ids(known(where, "#2")) == [("subscription", "id", second)]
    assert ids(known(where, "acme")) == [("subscription", "event type", second), ("subscription", "tenant", first)]
    assert ids(known(where, "ACME.EXAMPLE")) == [("subscription", "url", first)]
    assert ids(known(where, "1", tenant="acme")) == ids(known(where, "1"))
    assert ids(known(where, "1", tenant="other")) == []
    assert ids(known(where, "1", tenant="other")) == []
    assert ids(known(where, "acme", tenant="acme")) == [("subscription", "url", first)]
    third = repository.add(engine, "https://third.example/", "b", name="The Acme shop", external_id="4711")
    assert ids(known(where, "acme sh")) == [("subscription", "name", third)]
    assert ids(known(where, "4711")) == [("subscription", "external id", third)]
    assert known(where, "t[0]@5") == [Hit("event", "place", "t[0]@5", None, "t", 0, 5)]
    assert known(where, "9" * 30) == []


def test_subscriptions_are_found_by_name_and_external_id(
    engine: Engine, where: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the name in any case, behind any number of URLs with that text too, and the whole external id."""
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(3):
        repository.add(engine, f"https://warehouse.example/{number}", "order.paid")
    named: dict[str, Any] = {"name": "Über das WAREHOUSE", "external_id": "crm-4711", "tenant": "acme"}
    mine = repository.add(engine, URL, "order.*", further_types=["invoice.paid"], **named)
    assert ids(known(where, "Warehouse"))[0] == ("subscription", "name", mine)
    assert len(known(where, "warehouse")) == 3
    assert [each.what for each in known(where, "Über")] == [f"Über das WAREHOUSE, {URL} (order.*, invoice.paid)"]
    assert ids(known(where, "crm-4711", tenant="acme")) == [("subscription", "external id", mine)]
    assert known(where, "crm-471") == known(where, "crm-4711", tenant="other") == []
    assert known(where, "warehouse", tenant="other") == []


def test_attempts_in_memory_are_searched_by_webhook_id(where: Deployment) -> None:
    """Each record once."""
    attempt = Attempt(1.0, 7, "msg_1", "a", "acme", "t", 0, 5, 1, "retried", 503, "status 503", 0.1, None)

    class History:
        """Two attempts."""

        def recent(self, _subscription: object, _limit: int, where: Any) -> list[Attempt]:
            """The attempts that meet the condition."""
            return [each for each in (attempt, attempt._replace(attempt=2)) if where(each)]

    history: Any = History()
    assert known(where, "msg_1", history) == [Hit("event", "webhook-id", "a", None, "t", 0, 5)]
    assert known(where, "msg_1", history, "acme") != []
    assert known(where, "msg_1", history, "other") == known(where, "msg_2", history) == []


# In the log.


@pytest.fixture
def topic(real_kafka: Kafka) -> str:
    """A topic."""
    return real_kafka.topic(partitions=2)


def found(log: Log, text: str, *, bounds: Bounds = Bounds(), since: float = 0.0, tenant: str | None = None) -> Any:  # noqa: B008 (immutable)
    with LogReader(log.kafka) as reader:
        spans = whole(reader, log, since)
    return search(log, text, spans, bounds, tenant)


@pytest.mark.kafka
def test_events_are_found_by_their_ids_keys_and_fields(real_kafka: Kafka, topic: str) -> None:
    """Without search fields, also by any text in their values; with them, by whole values alone."""
    body = b'{"type": "order.paid", "order": {"id": "A-4711", "lines": [{"sku": 17}]}, "tags": ["red", "blue"]}'
    real_kafka.write(topic, [body], partition=1, headers=[("ce_id", b"evt-9"), ("tenant", b"acme")])
    real_kafka.write(topic, [b"\xff A-4711"], partition=0)  # a dead letter
    real_kafka._producer.produce(topic, b'{"type": "b"}', b"customer-5", 0)
    real_kafka._producer.flush()
    log = Log(real_kafka.settings(), [topic])
    fields = fields_of(SearchSettings(search_fields="data.order.id; data.tags;data.order.lines[0].sku"))
    precise = log._replace(search_fields=fields)

    def matched(log: Log, text: str, **more: Any) -> list[tuple[str, int | None, int | None]]:
        return [(each.matched, each.partition, each.offset) for each in found(log, text, **more).hits]

    (paid,) = found(log, "evt-9").hits
    assert (paid.matched, paid.what, paid.topic) == ("event id", "order.paid", topic)
    webhook_id = log.read_event(next(iter(records_of(log, topic)))).webhook_id
    assert matched(log, webhook_id) == [("webhook-id", 1, 0)]
    assert matched(log, "customer-5") == [("key", 0, 1)]
    assert matched(log, "A-47") == matched(log, "A-4711") == [("value", 1, 0)]
    assert matched(precise, "A-47") == []
    assert matched(precise, "A-4711") == [("data.order.id", 1, 0)]
    assert matched(precise, "blue") == [("data.tags", 1, 0)]
    assert matched(precise, "17") == [("data.order.lines[0].sku", 1, 0)]
    assert matched(log._replace(is_plain=False), "evt-9") == [("event id", 1, 0)]
    assert (matched(log, "evt-9", tenant="acme"), matched(log, "evt-9", tenant="b")) == ([("event id", 1, 0)], [])
    assert matched(log, "evt-9", since=time.time() + 60) == []


def records_of(log: Log, topic: str) -> Any:
    """The record with the first event."""
    from consumer.ops.events import record_at  # noqa: PLC0415 (of this helper alone)

    return [record_at(log.kafka, topic, 1, 0)]


@pytest.mark.kafka
def test_a_search_goes_on_where_its_bounds_have_ended_it(real_kafka: Kafka, topic: str) -> None:
    """No record is searched twice, and none is left out."""
    real_kafka.write(topic, [b'{"type": "a", "n": "x-%d"}' % number for number in range(50)], partition=0)
    log = Log(real_kafka.settings(), [topic])
    with LogReader(log.kafka) as reader:
        left = whole(reader, log, 0.0)
    offsets: list[int | None] = []
    parts = 0
    while left:
        stretch = search(log, "x-", left, Bounds(records=20))
        offsets += [each.offset for each in stretch.hits]
        assert stretch.records_left == 50 - len(offsets)
        left, parts = list(stretch.left), parts + 1
    assert offsets == list(range(50))
    assert parts >= 3


@pytest.mark.kafka
def test_a_stretch_with_too_many_hits_says_so(real_kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are returned."""
    monkeypatch.setattr(module, "MOST", 5)
    real_kafka.write(topic, [b'{"type": "a", "n": "x"}'] * 9, partition=0)
    stretch = found(Log(real_kafka.settings(), [topic]), '"x"')
    assert ([each.offset for each in stretch.hits], stretch.more) == ([0, 1, 2, 3, 4], True)


def test_a_wrong_search_field_is_a_mistake_of_the_settings() -> None:
    """The message names the expression and the mistake."""
    with pytest.raises(SettingsError, match=r"WEBHOOK_SEARCH_FIELDS: data\.: .*; for example data\.order_id"):
        fields_of(SearchSettings(search_fields="data.id; data."))
    assert fields_of(SearchSettings()) == ()
