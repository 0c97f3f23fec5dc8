"""How values are declared to Oracle: the declarations on the wire, and values of every length."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import TIMESTAMP, Engine, bindparam, func, insert, inspect, select

from consumer.crypto.vault import Vault
from consumer.http.urls import redact_url
from consumer.ledger import outbox, store, upkeep
from consumer.ledger.rows import AttemptFailure, AttemptResult, NewDelivery, OperationalEvent
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions import repository, secrets
from models import Base, ParkedDelivery, Payload, Subscription, SubscriptionSecret
from models.base import LocalTimestamp, UtcTimestamp
from tests.crypto.vaults import in_the_clear
from tests.databases import on_oracle
from tests.ledger.rows_kit import GROUP, URL, find, make_event, parked, result
from tests.oracle_emulator import Bind, Call, OracleEmulator, values

VARCHAR = values.VARCHAR
KINDS = {(VARCHAR, 1), (values.RAW, 0), (values.NUMBER, 0), (values.TIMESTAMP, 0)}
SHORT = 4000  # bytes: the longest bind that is not LONG

pytestmark = on_oracle


@pytest.fixture
def calls(emulator: OracleEmulator) -> list[Call]:
    """The calls since the test began."""
    emulator.forget()
    return emulator.calls


def shapes(calls: Sequence[Call], start: str) -> dict[str, set[tuple[Bind, ...]]]:
    """The different declarations of binds, by statement."""
    found: dict[str, set[tuple[Bind, ...]]] = {}
    for call in calls:
        if call.sql.startswith(start) and call.binds:
            found.setdefault(call.sql, set()).add(tuple(call.binds))
    return found


def batch(random: Random, number: int, first: int) -> list[NewDelivery]:
    """Deliveries with text and bytes of all lengths below LONG."""
    rows = []
    for offset in range(first, first + number):
        event = make_event(
            offset,
            type="t" * random.randint(1, 255),
            body=random.randbytes(random.randint(0, 1999)),
            key=random.choice([None, b"", random.randbytes(100)]),
            headers=random.choice([None, {"h": b"v" * random.randint(0, 900)}]),
            tenant=random.choice([None, "x" * random.randint(1, 255)]),
            traceparent=random.choice([None, "00-" + "a" * 60]),
        )
        answer = random.choice([None, "r" * random.randint(1, 1000)])
        failure = AttemptFailure("e" * random.randint(1, 1000), 500, answer, 1.0)
        rows.append(parked(event, 1, first=failure, last=random.choice([None, failure])))
    return rows


def test_a_look_up_has_one_shape_for_each_length_of_its_list(engine: Engine, calls: list[Call]) -> None:
    """Oracle keeps a child cursor for each combination of bind sizes (32, 128, 2,000 bytes)."""
    random = Random(1)
    for _ in range(40):
        names = [f"{'n' * random.randint(1, 200)}.{random.randrange(9999)}" for _ in range(random.randint(1, 5))]
        tenant = random.choice([None, "t" * random.randint(1, 200)])
        find_endpoints(engine, [(name, tenant) for name in names], (b"k",), in_the_clear)
    found = shapes(calls, "SELECT anon_1.subscription_id")
    assert len(found) > 2, "lists of several lengths"
    assert {sql: len(each) for sql, each in found.items()} == dict.fromkeys(found, 1)
    assert {bind.form for each in found.values() for shape in each for bind in shape if bind.kind == VARCHAR} == {1}


def test_batches_have_one_shape(engine: Engine, calls: list[Call]) -> None:
    """This holds whatever values are present or missing. No text is sent as NVARCHAR2, which Oracle would convert."""
    random = Random(2)
    for number in range(20):
        store.park(engine, GROUP, batch(random, random.randint(1, 5), 10 * number), 1.0)
    for table in ("webhook_payloads", "webhook_deliveries"):
        ((sql, found),) = shapes(calls, f"INSERT INTO {table} ").items()
        (shape,) = found
        assert {(bind.kind, bind.form) for bind in shape} <= KINDS
        assert max(bind.size for bind in shape) == SHORT, sql


def test_results_have_one_shape(engine: Engine, calls: list[Call]) -> None:
    """A null is declared with its column's type: CASE of a NUMBER and of a text's bind is ORA-00932."""
    repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(offset), 1) for offset in range(2)], 1.0)
    failed, silent = (result(row, "parked", 9.0) for row in find(engine))
    store.record(engine, GROUP, [failed])
    store.record(engine, GROUP, [silent._replace(status_code=None, failure=None)])
    ((_, found),) = shapes(calls, "UPDATE webhook_deliveries").items()
    (shape,) = found
    assert {(bind.kind, bind.form) for bind in shape} <= KINDS


def test_each_time_is_bound_with_the_type_of_its_column(engine: Engine, calls: list[Call]) -> None:
    """Oracle need not mix a TIMESTAMP WITH TIME ZONE and a TIMESTAMP in COALESCE or CASE (ORA-00932)."""
    declared, there = {}, {}
    for table in Base.metadata.sorted_tables:
        for found in inspect(engine).get_columns(table.name):
            if isinstance(kind := found["type"], TIMESTAMP):
                there[table.name, found["name"]] = values.TIMESTAMP_TZ if kind.timezone else values.TIMESTAMP
        for column in table.columns:
            if isinstance(column.type, UtcTimestamp | LocalTimestamp):
                at = bindparam("b_at", datetime(2026, 1, 1, tzinfo=UTC), column.type)
                with engine.connect() as connection:
                    connection.execute(select(func.coalesce(column, at)))
                ((bind,),) = (call.binds for call in calls if "coalesce" in call.sql)
                declared[table.name, column.name] = bind.kind
                calls.clear()
    assert declared == there


def test_long_values_have_few_shapes(engine: Engine, calls: list[Call]) -> None:
    """Values beyond the usual size, such as answers of failing receivers, are declared in powers of two."""
    random = Random(3)
    for offset in range(30):
        failure = AttemptFailure("boom", 500, "r" * random.randint(1025, 2000), 1.0)
        store.park(
            engine, GROUP, [parked(make_event(offset, body=bytes(random.randint(2049, 4096))), 1, last=failure)], 1.0
        )
    for table in ("webhook_payloads", "webhook_deliveries"):
        ((_, found),) = shapes(calls, f"INSERT INTO {table} ").items()
        assert len(found) == 1


def test_long_texts_outside_values_are_not_declared_as_long(engine: Engine, calls: list[Call]) -> None:
    """Oracle refuses a LONG in SELECT and WHERE (ORA-01461): long texts go in pieces there."""
    url, answer, text = "https://example.com/" + "u" * 2028, "r" * 2000, "true || " * 249 + "true"
    sub = repository.add(engine, url, "user.created")
    store.park(engine, GROUP, [parked(make_event(0), sub, url=url, last=AttemptFailure("boom", 500, answer, 1.0))], 1.0)
    store.record(
        engine, GROUP, [AttemptResult(1, 1, "parked", 2.0, 500, AttemptFailure("boom", 500, answer, 2.0), 2.0)]
    )
    assert repository.edit(engine, sub, {"url": url, "event_filter": text, "projection": text})
    assert repository.find(engine, url, ["user.created"]) == sub
    assert upkeep.disable(engine, GROUP, sub, "gone", url=url)
    repository.set_enabled(engine, sub, enabled=True)
    secrets.set_credential(engine, sub, "bearer", "s" * 2500, Vault(), datetime.now(UTC))
    assert sum(page.encrypted for page in secrets.reencrypt(engine, Vault(Fernet.generate_key().decode()))) == 1
    find_endpoints(engine, [("user.created", "x" * 4000)], (b"k",), in_the_clear)
    assert any(bind.size > SHORT for call in calls for bind in call.binds), "VALUES"
    for call in calls:
        if not re.match(r"begin|INSERT INTO [^)]+\)\s+VALUES", call.sql):
            assert all(bind.size <= SHORT for bind in call.binds), call
    with engine.connect() as connection:
        stored_row = connection.execute(select(ParkedDelivery.url, ParkedDelivery.last_response)).one()
        changed = connection.execute(select(Subscription.url, Subscription.event_filter)).one()
    assert (tuple(stored_row), tuple(changed)) == ((redact_url(url), answer), (url, text))


@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 4000, 8191, 8192, 40_000])
@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_values_of_all_lengths_are_kept(engine: Engine, length: int, character: str) -> None:
    """Lengths around each declared size are kept, with the longest amid a batch and up to 4 bytes a character."""
    text = character * length
    body = text.encode()
    events = [make_event(0), make_event(1, body=body, headers={"h": body}, key=body), make_event(2)]
    store.park(engine, GROUP, [parked(event, 1) for event in events], 1.0)
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [OperationalEvent("t", "op_1", {"text": text})])
        rows = connection.execute(select(Payload.body, Payload.record_headers).order_by(Payload.record_offset)).all()
    assert [row.body for row in rows] == [b"{}", body or None, b"{}"]
    assert json.loads(rows[1].record_headers or "") == {"h": text}
    ((_, waiting, _),) = outbox.pending(engine, GROUP, 10)
    assert waiting.data == {"text": text}


@pytest.mark.parametrize("name", ["x", "漢" * 255, "😀" * 127])  # the emulator counts UTF-16 units
def test_a_text_fills_its_column(engine: Engine, name: str) -> None:
    """A VARCHAR2(255 CHAR) holds up to 1,020 bytes, a VARCHAR2(4000 CHAR) 4,000 characters of one byte."""
    with engine.begin() as connection:
        connection.execute(insert(Subscription).values(url="https://example.com/" + "x" * 2028, event_type=name))
        connection.execute(insert(SubscriptionSecret).values(subscription_id=1, secret="s" * 4000))
        row = connection.execute(
            select(Subscription.url, SubscriptionSecret.secret)
            .join(SubscriptionSecret, SubscriptionSecret.subscription_id == Subscription.id)
            .where(Subscription.event_type == name)
        ).one()
    assert (len(row.url), row.secret) == (2048, "s" * 4000)


def test_a_value_too_long_for_the_column_finds_nothing(engine: Engine) -> None:
    """A record's event type may be longer than any subscription's; looking it up is not an error."""
    for length in (256, 1000, 4000):
        key = ("t" * length, "x" * length)
        assert find_endpoints(engine, [key], (b"k",), in_the_clear) == {key: ()}
    with engine.connect() as connection:
        assert connection.execute(select(ParkedDelivery.id).where(ParkedDelivery.topic == "x" * 1000)).all() == []
