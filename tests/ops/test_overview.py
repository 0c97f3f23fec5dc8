"""The overview: its parts, and the remaining ones if a part fails."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, KafkaSettings
from consumer.crypto.vault import Vault
from consumer.database.engine import create_engine
from consumer.ledger import cursors, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.ledger.rows import AttemptFailure
from consumer.ops import overview as module
from consumer.ops.changes import Deployment
from consumer.ops.dead_letters import HOUR
from consumer.ops.overview import of_tenant, overview, shared
from consumer.subscriptions import health, repository
from models import CursorReason
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import BOOM, GROUP, URL, expire, make_event, parked

T = 1_700_000_000.0


@pytest.fixture
def settings(mock_kafka: str) -> tuple[KafkaSettings, str]:
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    kafka.write(topic, [b"{}"] * 4)
    return kafka.settings(), topic


def test_an_overview_has_all_parts(engine: Engine, settings: tuple[KafkaSettings, str]) -> None:
    """It has counts, lag, and failing (with reasons), loaded, disabled, paused, expiring and broken subscriptions."""
    kafka, topic = settings
    failing, disabled, loaded, paused = (repository.add(engine, URL, "user.created") for _ in range(4))
    store.park(engine, GROUP, [parked(make_event(0), failing), parked(make_event(1), loaded)], T)
    store.park(engine, GROUP, [parked(make_event(2), loaded), parked(make_event(2), loaded + 100)], T)
    upkeep.failing(engine, failing, T)
    repository.set_enabled(engine, disabled, False, "moved")
    repository.pause(engine, paused, "no space")
    repository.pause(engine, disabled)
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, paused), 5, CursorReason.PAUSED)], T)
    expire(engine, paused, T + health.EXPIRES_SOON - 1)
    found = overview(engine, kafka, [topic], seconds=60, clock=lambda: T)
    assert found.expiring is not None
    assert [each.subscription_id for each in found.expiring] == [paused]
    assert (found.missing, found.at) == ((), T)
    assert found.states == {"parked": 4, "blocked": 0, "held": 0, "exhausted": 0, "delivered": 0}
    assert found.loaded is not None
    assert [
        (each.subscription_id, each.waiting, each.subscription and each.subscription.url, each.last)
        for each in found.loaded
    ] == [(loaded, 2, URL, BOOM), (failing, 1, URL, BOOM), (loaded + 100, 1, None, BOOM)]
    assert found.failing is not None
    assert [(each.subscription.subscription_id, each.last, each.waiting) for each in found.failing] == [
        (failing, BOOM, 1)
    ]
    assert found.disabled is not None
    assert [(each.subscription_id, each.reason) for each in found.disabled] == [(disabled, "moved")]
    assert found.paused is not None
    assert [(each.subscription_id, each.mode, each.reason) for each in found.paused] == [(paused, "paused", "no space")]
    assert found.problematic == ((), 2)
    assert found.lag is not None
    assert sum(each.records for each in found.lag) == 4
    assert found.dead_letters == 0


def test_a_tenants_overview_is_about_its_own_subscriptions(engine: Engine) -> None:
    """It counts and lists nothing of another tenant's. What is about all tenants is missing, with the reason."""
    for tenant in ("acme", "other"):
        made = [repository.add(engine, URL, "user.created", tenant=tenant) for _ in range(4)]
        failing, disabled, loaded, paused = made
        failed = AttemptFailure("connecting to 10.9.8.7:443: refused", None, None, 1.0)
        rows = [parked(make_event(0), failing, first=failed, last=failed), parked(make_event(1), loaded)]
        store.park(engine, GROUP, [*rows, parked(make_event(2), loaded, status="exhausted")], T)
        upkeep.failing(engine, failing, T)
        repository.set_enabled(engine, disabled, False, "moved")
        repository.pause(engine, paused, "no space")
        if tenant == "acme":
            mine = made
    seen = of_tenant(Deployment(engine, GROUP, Vault(), clock=lambda: T), "acme")
    assert (seen.at, seen.states) == (T, {"parked": 2, "blocked": 0, "held": 0, "exhausted": 1, "delivered": 0})
    assert seen.failing is not None
    assert [
        (each.subscription.subscription_id, each.last and each.last.error, each.waiting) for each in seen.failing
    ] == [(mine[0], "connecting to …:443: refused", 1)]
    assert seen.loaded is not None
    assert [(each.subscription_id, each.waiting) for each in seen.loaded] == [(mine[0], 1), (mine[2], 1)]
    assert [[each.subscription_id for each in part or ()] for part in (seen.disabled, seen.paused)] == [
        [mine[1]],
        [mine[3]],
    ]
    assert seen.problematic is not None
    assert seen.problematic.looked_at == 2
    assert {each.id for each in seen.problematic.subscriptions} <= {*mine}
    assert dict(seen.missing).keys() == {"expiring", "lag", "dead_letters"}
    nothing = of_tenant(Deployment(engine, GROUP, Vault()), "nobody")
    assert nothing.states == dict.fromkeys(seen.states or (), 0)
    assert [nothing.loaded, nothing.failing, nothing.disabled, nothing.paused] == [[]] * 4
    assert nothing.problematic == ((), 0)


def test_dead_letters_of_the_last_hour_are_counted(sqlite_engine: Engine, mock_kafka: str) -> None:
    """Those of all partitions are. The mock cluster cannot look times up, apart from the first moment of all."""
    kafka = Kafka(mock_kafka, real=False)
    settings = kafka.settings(dead_letters=kafka.topic())
    for partition in (0, 0, 1):
        kafka.write(settings.dead_letter_topic, [b"x"], partition=partition)
    assert overview(sqlite_engine, settings, ["t"], seconds=60, clock=lambda: HOUR).dead_letters == 3


def test_parts_that_are_missing_for_one_reason_are_one_fault(sqlite_engine: Engine, tmp_path: Path) -> None:
    """A database that does not answer is one line for a person, and so is Kafka; the other parts remain."""
    without = overview(sqlite_engine, Kafka("127.0.0.1:1", real=False).settings(), ["t"], seconds=60)
    assert [part for part, reason in without.missing if "KAFKA_BOOTSTRAP_SERVERS" in reason] == ["lag", "dead_letters"]
    assert without.disabled == []
    engine = create_engine(load(DatabaseSettings, {"DATABASE_URL": f"sqlite:///{tmp_path}/absent.db"}))
    found = overview(engine, None, (), seconds=60)
    database, kafka = found.faults
    assert len(found.missing) == 9
    assert database.part.startswith("the numbers of stored deliveries and the failing subscriptions and ")
    assert database.part.endswith(" and the subscriptions with problems")
    assert "there is no such file" in database.reason
    assert kafka.part == "the lag and the dead letters"


def test_a_part_that_hangs_is_named(
    engine: Engine, settings: tuple[KafkaSettings, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped after the time limit, and the others are returned."""
    kafka, topic = settings
    released = Event()
    monkeypatch.setattr(module, "group_lag", lambda *_: released.wait(200))
    found = overview(engine, kafka, [topic], seconds=5)
    released.set()
    assert (found.lag, found.states is None) == (None, False)
    assert [each.part for each in found.missing] == ["lag"]
    assert "no answer within" in found.missing[0].reason


def test_a_bug_is_not_hidden(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors of Kafka, the database or the settings make a part missing."""
    monkeypatch.setattr(module, "group_lag", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        overview(sqlite_engine, Kafka("127.0.0.1:1", real=False).settings(), ["t"], seconds=60)


def test_a_slow_look_holds_one_thread() -> None:
    """Callers that come meanwhile get the last overview at once; a fresh one is shared."""
    numbers, begun, released, now = count(), Event(), Event(), [0.0]

    def look() -> int:
        if number := next(numbers):
            begun.set()
            released.wait(60)
        return number

    overviews = shared(look, lambda: now[0], fresh=2.0)
    assert [overviews(), overviews()] == [0, 0]
    now[0] = 2.0
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(overviews)
        assert begun.wait(60)
        assert overviews() == 0
        released.set()
        assert slow.result(60) == overviews() == 1
