"""A database whose character set lacks characters: no text is replaced, and none is matched by mistake."""

import codecs
from collections.abc import Iterator, Sequence

import oracledb
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.database import charset, migrations
from consumer.delivery.parking import Parking
from consumer.errors import DatabaseRefused, InvalidSubscription, Unstorable
from consumer.ledger import outbox, store
from consumer.ledger.rows import NewDelivery
from consumer.matching.catalog import find_endpoints
from consumer.ops import check
from consumer.subscriptions import repository
from consumer.worker.service import Service
from models import ParkedDelivery, StoredOperation
from tests.crypto.vaults import in_the_clear
from tests.databases import connect_to
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL, find, make_event, operation, parked
from tests.oracle.conftest import Start
from tests.oracle_emulator import OracleEmulator

CYRILLIC = "заказ"
REPLACED = "¿¿¿¿¿"  # what the server would store of it


@pytest.fixture
def western(start_oracle: Start) -> OracleEmulator:
    """A server that holds Western European texts only."""
    return start_oracle(character_set="WE8MSWIN1252")


@pytest.fixture
def engine(western: OracleEmulator) -> Iterator[Engine]:
    """A migrated database there."""
    made = connect_to(western.url)
    migrations.upgrade(made)
    yield made
    made.dispose()


def test_the_emulator_replaces_what_a_set_lacks(western: OracleEmulator) -> None:
    """Without our check the server stores another text, and reports no error."""
    with oracledb.connect(user="webhooks", password="secret", dsn=western.dsn) as plain:
        cursor = plain.cursor().execute("SELECT :given FROM dual", given=f"{CYRILLIC}, größer 5 €")
        assert cursor.fetchone() == (f"{REPLACED}, größer 5 €",)


def test_the_character_set_is_asked_once(western: OracleEmulator, engine: Engine) -> None:
    """A process asks at its first connect only, not for each session."""
    del engine  # which has asked too
    western.forget()
    other = connect_to(western.url)
    with other.connect(), other.connect(), other.connect():
        pass
    assert sum("nls_database_parameters" in call.sql for call in western.calls) == 1
    other.dispose()


def test_nothing_changes_in_unicode(oracle: OracleEmulator) -> None:
    """In AL32UTF8 each text is stored as it is, and nobody is warned."""
    engine = connect_to(oracle.url)
    migrations.upgrade(engine)
    repository.add(engine, URL, "t", tenant=CYRILLIC)
    assert [each.tenant for each in repository.walk(engine, tenant=CYRILLIC)] == [CYRILLIC]
    assert charset.shortcoming(engine) is None
    engine.dispose()


def test_a_value_that_cannot_be_held_is_refused(engine: Engine) -> None:
    """The error names the value's field, as other invalid values do; nothing is written."""
    kept = repository.add(engine, URL, "t", tenant="größe")
    with pytest.raises(InvalidSubscription, match="the database's character set WE8MSWIN1252 lacks") as added:
        repository.add(engine, URL, "t", tenant=CYRILLIC)
    with pytest.raises(InvalidSubscription) as edited:
        repository.edit(engine, kept, {"event_filter": f"event.data.what == '{CYRILLIC}'"})
    with pytest.raises(InvalidSubscription) as disabled:
        repository.set_enabled(engine, kept, False, CYRILLIC)
    assert [caught.value.option for caught in (added, edited, disabled)] == [
        "tenant",
        "event_filter",
        "disabled_reason",
    ]
    for binds in ({"t": CYRILLIC}, (CYRILLIC,)):
        with pytest.raises(Unstorable), engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO webhook_subscriptions (url, event_type, tenant) VALUES ('u', 'e', :t)", binds
            )
    assert [(each.tenant, each.enabled) for each in repository.walk(engine)] == [("größe", True)]


def test_a_look_up_with_such_a_value_matches_nothing(engine: Engine) -> None:
    """No subscription can hold it, and one to the text that Oracle makes of it is another's."""
    repository.add(engine, URL, "*", tenant=REPLACED)
    everything = repository.add(engine, URL, "*")
    found = find_endpoints(engine, [(CYRILLIC, CYRILLIC), ("t", REPLACED)], DEFAULT, in_the_clear)
    assert [each.subscription_id for each in found[CYRILLIC, CYRILLIC]] == [everything]
    assert len(found["t", REPLACED]) == 2
    assert list(repository.walk(engine, tenant=CYRILLIC)) == []
    assert repository.page(engine, after=None, limit=10, url=CYRILLIC) == ()


def test_an_event_that_cannot_be_held_is_not_stored(engine: Engine) -> None:
    """Its type, tenant, id and content type would be replaced."""
    for name in ("type", "tenant", "webhook_id", "content_type", "traceparent"):
        row = parked(make_event(1)._replace(**{name: CYRILLIC}), 1)  # type: ignore[arg-type]  # a test's shorthand
        with pytest.raises(Unstorable):
            store.park(engine, GROUP, [parked(make_event(2), 1), row], 100.0)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(ParkedDelivery)) == 0


def test_headers_and_operational_events_are_stored_in_ascii(engine: Engine) -> None:
    """JSON can escape each character, so that any header and any error survive."""
    subscription = repository.add(engine, URL, "*")
    headers = {"who": CYRILLIC.encode()}
    store.park(engine, GROUP, [parked(make_event(1, headers=headers), subscription)], 100.0)
    assert [row.event.headers for row in find(engine)] == [headers]
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [operation()])
        assert str(connection.scalar(sa.select(StoredOperation.data))).isascii()
    assert [each.data for _, each, _ in outbox.pending(engine, GROUP, 10)] == [operation().data]


@pytest.mark.parametrize("refused_before", [False, True])
def test_such_a_delivery_becomes_a_dead_letter(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, refused_before: bool
) -> None:
    """It holds up nobody: the others are stored, also if it was set aside before."""
    made, park, refusals = Store(engine), store.park, [DatabaseRefused("another reason")] * refused_before

    def parks(engine: Engine, group: str, rows: Sequence[NewDelivery], now: float) -> None:
        if refusals and [row.event.tenant for row in rows] == [CYRILLIC]:
            raise refusals.pop()
        park(engine, group, rows, now)

    monkeypatch.setattr(store, "park", parks)
    parking: Parking = made.parking
    settled: list[int] = []
    for offset in range(8):
        tenant = CYRILLIC if offset == 5 else None
        parking.park(parked(make_event(offset, tenant=tenant), 1), lambda offset=offset: settled.append(offset))  # type: ignore[misc]
    for _ in range(40):
        if parking.backlog > 1 or not made.refused:
            made.write()
            made.monotonic.now += 10
    ((item, error, settle),) = made.refused
    assert item.event.record.offset == 5
    assert str(error).startswith("tenant: has a character that the database's character set")
    assert sorted(settled) == [0, 1, 2, 3, 4, 6, 7]
    settle()
    assert (sorted(settled), parking.backlog) == ([*range(8)], 0)
    made.thread.close(20)


def test_check_fails_and_a_worker_warns(western: OracleEmulator, engine: Engine) -> None:
    """Both say what follows, and what to do."""
    found = {each.part: each for each in check.check_all({"DATABASE_URL": western.url})}
    assert found["database"].ok
    assert not found["character set"].ok
    assert "move to a database in AL32UTF8" in found["character set"].text
    with capture_logs() as logs:
        Service()._await_database(engine)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", found["character set"].text)]


@pytest.mark.parametrize(
    ("name", "text", "fits"),
    [
        ("WE8ISO8859P15", "5 €", True),
        ("WE8ISO8859P1", "5 €", False),
        ("JA16SJIS", "注文", True),
        ("JA16SJIS", "¥", False),  # its byte is that of the backslash
        ("US7ASCII", "ä", False),
        ("WE8DEC", "ä", False),  # a set that we do not know
        ("WE8DEC", "a", True),
        ("AL32UTF8", "😀", True),
    ],
)
def test_what_a_set_can_hold(sqlite_engine: Engine, name: str, text: str, fits: bool) -> None:  # noqa: FBT001 (a table's column)
    """A text fits if Python's codec of the set gives it back; in an unknown set only ASCII does."""
    sqlite_engine.update_execution_options(character_set=name)
    if fits:
        charset.refuse(sqlite_engine, {"event_type": text})
    else:
        with pytest.raises(Unstorable):
            charset.refuse(sqlite_engine, {"event_type": text})


def test_python_has_each_codec() -> None:
    """Otherwise the first text that is not ASCII would fail with an error of its own."""
    for codec in filter(None, charset._CODECS.values()):
        assert codecs.lookup(codec).encode("A")[0] == b"A"
