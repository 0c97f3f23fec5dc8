"""Revision 0003: what a database of 0002 holds works after the migration, online, by script, and after a way back."""

import io
from collections.abc import Callable
from contextlib import closing

import oracledb
import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from consumer.ledger import cursors, replays, upkeep
from consumer.ledger.cursors import CursorMove, KeptCursor
from consumer.ledger.replays import Replay, Span
from consumer.subscriptions import repository
from models import CursorReason
from tests.databases import differences
from tests.ledger.rows_kit import GROUP, find, make_event, offsets, park, parked, query, run, states
from tests.oracle import sqlplus

Upgrade = Callable[[Engine], None]
SUBSCRIPTION = "INSERT INTO webhook_subscriptions (url, event_type, enabled) VALUES ('https://a.example', 't', {})"
REPLAY = """INSERT INTO webhook_replays (group_id, subscription_id, since_at, until_at, event_type, rate, matched,
    positions, record_count, background, created_by, finished_at, cancelled_at)
    SELECT 'webhooks', :receiver, created_at, created_at, 'user.*', 2.5, 3, :positions, :records, :background, 'me',
        CASE :state WHEN 'finished' THEN created_at END, CASE :state WHEN 'cancelled' THEN created_at END
    FROM webhook_subscriptions WHERE id = 1"""
LEFT = '[["t",0,10,90],["t",1,5,5],["orders.v1-x_y",2,9007199254740993,9007199254740995]]'
SPANS = [(("orders.v1-x_y", 2, 1), 9007199254740993, 9007199254740995), (("t", 0, 1), 10, 90)]


def migrate(engine: Engine) -> None:
    migrations.upgrade(engine)


def by_script(engine: Engine) -> None:
    """As a DBA does, with the printed SQL."""
    output = io.StringIO()
    migrations.upgrade(engine, revision="0002:head", sql=True, output=output)
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:
            connection.driver_connection.executescript(output.getvalue())  # type: ignore[union-attr]  # of sqlite3
        return
    parts = engine.url
    place = f"{parts.host}:{parts.port}/{parts.query['service_name']}"
    with closing(oracledb.connect(user=parts.username, password=parts.password, dsn=place)) as connection:
        assert sqlplus.run(connection, output.getvalue()) == []


def down(engine: Engine) -> None:
    command.downgrade(migrations._config(engine), "0002")


@pytest.fixture
def old(engine: Engine) -> Engine:
    """A database at 0002, with a subscription of id 1."""
    down(engine)
    run(engine, SUBSCRIPTION.format(1))
    return engine


@pytest.fixture(params=[migrate, by_script])
def upgrade(request: pytest.FixtureRequest) -> Upgrade:
    found: Upgrade = request.param
    return found


def replay(
    engine: Engine,
    positions: str = LEFT,
    *,
    state: str = "open",
    background: int = 1,
    receiver: int = 1,
    records: int | None = 100,
) -> int:
    """Stores a replay as 0002 did, and returns its id."""
    binds = {"receiver": receiver, "positions": positions, "records": records}
    run(engine, REPLAY, background=background, state=state, **binds)
    ((found,),) = query(engine, "SELECT MAX(id) FROM webhook_replays")
    return int(found)


def load(engine: Engine, number: int) -> Replay:
    found = replays.load(engine, number)
    assert found is not None
    return found


def cursors_of(engine: Engine, number: int) -> list[KeptCursor]:
    places = (("t", 0), ("t", 1), ("orders.v1-x_y", 2))
    kept = [each for place in places for each in cursors.of_partition(engine, GROUP, place)]
    return sorted(each for each in kept if each.replay == number)


def spans_of(engine: Engine, number: int) -> list[object]:
    found = [(each.due_key, each.next, each.end) for each in cursors_of(engine, number)]
    return sorted(found, key=str)


def end(engine: Engine, number: int) -> None:
    """Its partitions' owners move its cursors to their ends."""
    moves = [
        CursorMove(each.id, each.version, each.end or 0, each.end, "", None) for each in cursors_of(engine, number)
    ]
    assert not cursors.save(engine, moves, 200.0)
    replays.finish(engine, 200.0)


def test_a_background_replay_goes_on_where_it_was(old: Engine, upgrade: Upgrade) -> None:
    """What it has left to read becomes a cursor for each partition, and it finishes when these have ended."""
    number = replay(old)
    upgrade(old)
    assert differences(old) == []
    assert spans_of(old, number) == SPANS
    assert all(
        (each.reason, each.first, each.version) == (CursorReason.REPLAY, each.next, 0)
        for each in cursors_of(old, number)
    )
    (request,) = replays.requests(old, [number]).values()
    assert (request.event_type, request.rate, request.ordered, request.cursors) == ("user.*", 2.5, False, 2)
    found = load(old, number)
    assert (found.state, found.records, found.records_left, found.created_by) == ("running", 100, 82, "me")
    end(old, number)
    assert (load(old, number).state, load(old, number).records_left) == ("finished", 0)


def test_replays_that_had_stopped_do_not_begin_by_themselves(old: Engine, upgrade: Upgrade) -> None:
    """A cancelled one, and one that a command ran, keep what they have left, and go on when they are resumed."""
    stopped = [replay(old, state="cancelled"), replay(old, background=0)]
    finished = replay(old, "[]", state="finished")
    upgrade(old)
    replays.finish(old, 200.0)
    for number in stopped:
        found = load(old, number)
        assert (found.state, found.records, found.records_left) == ("cancelled", 100, 82)
        assert replays.requests(old, [number]) == {}
        assert replays.resume(old, number)
        assert load(old, number).state == "running"
        assert spans_of(old, number) == SPANS
        end(old, number)
        assert load(old, number).state == "finished"
    found = load(old, finished)
    assert (found.state, found.records, found.records_left) == ("finished", 100, 0)
    assert cursors_of(old, finished) == []


def test_replays_with_nothing_to_read_end(old: Engine, upgrade: Upgrade) -> None:
    """One that had read everything is finished, and one whose subscription is gone is cancelled."""
    done, orphan = replay(old, '[["t",0,5,5]]', background=0, records=None), replay(old, receiver=9)
    upgrade(old)
    replays.finish(old, 200.0)
    assert (load(old, done).state, load(old, done).records) == ("finished", 3)
    assert load(old, orphan).state == "cancelled"


@pytest.mark.parametrize("positions", ['["t"]', '[["t",0,"ten",90]]', '[["t",0]]', '[{"topic": "t"}]', "[[[],0,1,2]]"])
def test_positions_that_cannot_be_read_stop_nothing_else(old: Engine, positions: str) -> None:
    """A replay whose positions somebody has edited is cancelled, and the others go on."""
    damaged, sound = replay(old, positions), replay(old)
    migrate(old)
    replays.finish(old, 200.0)
    assert (load(old, damaged).state, load(old, sound).state) == ("cancelled", "running")
    assert (cursors_of(old, damaged), spans_of(old, sound)) == ([], SPANS)


def test_stored_deliveries_are_sent_after_the_migration(old: Engine, upgrade: Upgrade) -> None:
    """Rows of a replay are due; the held ones of a disabled subscription are, too, once it is enabled."""
    number = replay(old)
    run(old, SUBSCRIPTION.format(0))
    run(old, "ALTER TABLE webhook_deliveries ADD unpublished_by VARCHAR(255)")  # what stores rows now has it
    park(old, parked(make_event(1), 1), parked(make_event(2), 1, replay=number, attempt=0), parked(make_event(3), 2))
    run(old, "ALTER TABLE webhook_deliveries DROP COLUMN unpublished_by")
    run(old, "UPDATE webhook_deliveries SET status = 'held' WHERE subscription_id = 2")
    upgrade(old)
    upkeep.reconcile(old, 1000.0)
    assert states(old) == {1: "parked", 2: "parked", 3: "held"}
    assert [(row.event.record.offset, row.replay) for row in find(old)] == [(1, 0), (2, number)]
    assert repository.set_enabled(old, 2, enabled=True)
    upkeep.follow(old, 2, 1000.0)
    assert offsets(find(old)) == [1, 2, 3]


def test_no_id_of_a_replay_is_used_again(old: Engine) -> None:
    """Not on the way up or down, though the replay was deleted: stored deliveries name it."""
    last = replay(old)
    run(old, "DELETE FROM webhook_replays")
    migrate(old)
    down(old)
    assert replay(old) == last + 1
    run(old, "DELETE FROM webhook_replays")
    migrate(old)
    assert replays.create(old, GROUP, 1, 0.0, 1.0, None, 1.0, [Span("t", 0, 1, 2)], 100.0) == last + 2


def test_the_way_back_sends_nothing_that_was_not_to_be_sent(old: Engine) -> None:
    """A paused subscription is disabled with its reason, open replays are cancelled, and the tables are as before."""
    before = columns(old)
    migrate(old)
    for _ in range(3):
        run(old, SUBSCRIPTION.format(1))
    repository.pause(old, 2, "maintenance")
    repository.pause(old, 3)
    number = replays.create(old, GROUP, 1, 0.0, 1.0, None, 1.0, [Span("t", 0, 1, 2)], 100.0)
    down(old)
    assert columns(old) == before
    found = query(old, "SELECT id, enabled, disabled_reason FROM webhook_subscriptions ORDER BY id")
    assert [tuple(row) for row in found] == [(1, 1, None), (2, 0, "maintenance"), (3, 0, "it was paused"), (4, 1, None)]
    ((cancelled, why, positions),) = query(old, "SELECT cancelled_at, last_error, positions FROM webhook_replays")
    assert cancelled is not None
    assert (why, positions) == ("begin another replay: the tables went back to revision 0002", "[]")
    migrate(old)
    assert differences(old) == []
    assert (load(old, number).state, load(old, number).records) == ("cancelled", 1)


def columns(engine: Engine) -> dict[str, object]:
    """The columns, indexes and checks of each table of ours."""
    there = sa.inspect(engine)
    return {
        table: (
            sorted((each["name"], str(each["type"]), each["nullable"]) for each in there.get_columns(table)),
            sorted(str(each["name"]) for each in there.get_indexes(table)),
            sorted(str(each["name"]) for each in there.get_check_constraints(table)),
        )
        for table in there.get_table_names()
        if table.startswith("webhook_")
    }


def test_a_trigger_of_subscriptions_stays(sqlite_engine: Engine) -> None:
    """Their table is changed in place on SQLite, where a copy would lose it."""  # which only SQLite copies
    run(sqlite_engine, "CREATE TRIGGER mine AFTER INSERT ON webhook_subscriptions BEGIN SELECT 1; END")
    down(sqlite_engine)
    migrate(sqlite_engine)
    assert query(sqlite_engine, "SELECT name FROM sqlite_master WHERE type = 'trigger'") == [("mine",)]
