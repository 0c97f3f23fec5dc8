"""Faults of the database: of SQLite's file, or of an emulated Oracle."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from random import Random, random

from tests.chaos.book import Disruption
from tests.chaos.faults import Fault, Waits
from tests.chaos.world import Part, World
from tests.end_to_end.deployed_database import EmulatedOracle, SqliteDatabase
from tests.oracle_emulator import Call, OracleError
from tests.oracle_emulator.instance import Drop, Matches

Place = tuple[int, int]  # partition and offset
Play = Callable[[World, Random], Waits]

TABLES = ("webhook_subscriptions", "webhook_deliveries", "webhook_payloads", "webhook_operations")
HANGS = 3.0  # seconds of a call, longer than `altered_worker.impatient` waits
FAILS_OVER = 120.0  # seconds
LONGEST = 8.0  # seconds
WRITES = ("INSERT", "UPDATE", "DELETE")
CUT, CUT_LATE = "DPY-4011 before a batch", "DPY-4011 behind a batch"
END_OF_FILE, LOST = "ORA-03113 in a batch", "answers to commits lost"
LOCKED, REFUSED = "one row locked", "one row refused"
JUST_NOW = 0.25  # seconds: a new delivery is not stored sooner, as its first wait is in memory
ALONE_WITHIN = 20.0  # seconds: eight times 2, and some more
TRIED_WITHIN = 10.0  # seconds until a row set aside for some seconds is retried, and the result noticed
DEADLOCK, HUNG, STARTS = "ORA-00060", "call_timeout", "failover of two minutes"


# SQLite.


def _sqlite(make: Callable[[SqliteDatabase], AbstractContextManager[None]]) -> Play:
    def play(world: World, random: Random) -> Waits:
        with world.outage(Part.DATABASE), make(world.deployment.sqlite):
            yield random.uniform(0.5, 3.0)

    return play


@contextmanager
def _broken_inserts(database: SqliteDatabase) -> Iterator[None]:
    """A batched insert fails at one of its rows."""
    database.sql(
        "CREATE TRIGGER chaos BEFORE INSERT ON webhook_deliveries WHEN NEW.record_offset % 5 = 3"
        " BEGIN SELECT RAISE(FAIL, 'in the middle of a batch'); END"
    )
    try:
        yield
    finally:
        database.sql("DROP TRIGGER chaos")


def refuse_row(world: World, random: Random) -> Waits:
    """The database refuses all rows of one record, and accepts all others."""
    place = yield from _about_to_be_stored(world)
    if place is None:
        return
    sql, (partition, offset) = world.deployment.sql, place
    disruption = _row_is_disrupted(world, place)
    for write in ("INSERT", "UPDATE"):
        sql(
            f"CREATE TRIGGER refused_{write} BEFORE {write} ON webhook_deliveries"
            f" WHEN NEW.partition_no = {partition} AND NEW.record_offset = {offset}"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    try:
        for _ in range(random.randint(4, 8)):
            yield 0.5
            world.met[REFUSED] += any(worker.metric("webhooks_set_aside") for worker in world.workers)
    finally:
        for write in ("INSERT", "UPDATE"):
            sql(f"DROP TRIGGER refused_{write}")
        disruption.until = time.time() + TRIED_WITHIN


# Oracle.


def lock_row(world: World, random: Random) -> Waits:
    """Another session holds rows of one record: statements that would insert them wait for call_timeout."""
    place = yield from _about_to_be_stored(world)
    if place is None:
        return
    disruption = _row_is_disrupted(world, place)
    record = [world.deployment.topic, *place]

    def hangs(call: Call) -> bool:
        if _writes(call) and any(list(row[at : at + 3]) == record for row in call.rows for at in range(len(row) - 2)):
            world.met[LOCKED] += 1
            time.sleep(HANGS)
        return False

    # Until the row is alone, other rows of its batch wait with it.
    with world.outage(Part.DATABASE), _calls(world, LOCKED, hangs):
        yield from _until_set_aside(world)
        yield random.uniform(0.5, 3.0)
    yield HANGS
    disruption.until = time.time() + TRIED_WITHIN


def kill_sessions(world: World, random: Random) -> Waits:
    """A DBA kills all sessions, several times."""
    with world.outage(Part.DATABASE):
        for _ in range(3):
            _oracle(world).server.kill_sessions(_oracle(world).user)
            yield random.uniform(0.2, 1.0)


def _failing(what: str, matches: Matches, code: int = 0, drop: Drop = "", times: float = inf) -> Play:
    """Some calls fail with this error of Oracle, or their connections end: before they are executed, or after."""

    def play(world: World, random: Random) -> Waits:
        error = OracleError(code, "of the chaos") if code else None
        with world.outage(Part.DATABASE), _calls(world, what, matches, error, drop=drop, times=times):
            yield from _until_met(world, what, random)

    return play


def hang(world: World, random: Random) -> Waits:
    """Calls are not answered within call_timeout: DPY-4024."""

    def hangs(call: Call) -> bool:
        if _writes(call):
            world.met[HUNG] += 1
            time.sleep(HANGS)
        return False

    with world.outage(Part.DATABASE), _calls(world, HUNG, hangs):
        yield from _until_met(world, HUNG, random)
        # Calls that hang then go on hanging.
    yield HANGS


def rotate_password(world: World, random: Random) -> Waits:
    """The password changes for some seconds, and sessions end: ORA-01017."""
    oracle = _oracle(world)
    with world.outage(Part.DATABASE):
        oracle.server.set_password(oracle.user, "another")
        oracle.server.kill_sessions(oracle.user)
        try:
            yield random.uniform(0.5, 3.0)
        finally:
            oracle.server.set_password(oracle.user, oracle.password)


def close_listener(world: World, random: Random) -> Waits:
    """The listener is down, and sessions end."""
    yield from _without_a_listener(world, random.uniform(0.5, 4.0))


def fail_over(world: World, random: Random) -> Waits:
    """Like `close_listener`, for two minutes; then the instance starts for some seconds: ORA-01033."""
    yield from _without_a_listener(world, FAILS_OVER)
    error = OracleError(1033, "ORACLE initialization or shutdown in progress")
    with world.outage(Part.DATABASE), _calls(world, STARTS, lambda call: call.sql == "CONNECT", error):
        _oracle(world).server.kill_sessions(_oracle(world).user)
        yield random.uniform(1.0, 5.0)


def _without_a_listener(world: World, seconds: float) -> Waits:
    oracle = _oracle(world)
    with world.outage(Part.DATABASE):
        oracle.server.close_listener()
        oracle.server.kill_sessions(oracle.user)
        try:
            yield seconds
        finally:
            oracle.server.open_listener()


@contextmanager
def _calls(
    world: World, what: str, matches: Matches, error: OracleError | None = None, *, drop: Drop = "", times: float = inf
) -> Iterator[None]:
    """Make calls of workers fail until the block ends. The world counts the affected calls under `what`."""
    oracle = _oracle(world)

    def meets(call: Call) -> bool:
        if call.user not in {oracle.user, ""} or not matches(call):  # a connecting client has no user yet
            return False
        world.met[what] += 1
        return True

    fault = oracle.server.inject(meets, error, drop=drop, times=times)
    try:
        yield
    finally:
        fault.times = 0


def _until_met(world: World, what: str, random: Random) -> Waits:
    """Wait a while, and longer if no call has met the fault yet."""
    before, end = world.met[what], time.monotonic() + LONGEST
    yield random.uniform(0.5, 3.0)
    while world.met[what] == before and time.monotonic() < end:
        yield 0.2


def _until_set_aside(world: World) -> Waits:
    """Each half of a batch must wait for `call_timeout` until the row is alone."""
    end = time.monotonic() + ALONE_WITHIN
    while time.monotonic() < end and not any(worker.metric("webhooks_set_aside") for worker in world.workers):
        yield 0.5


def _about_to_be_stored(world: World) -> Generator[float, None, Place | None]:
    """A new record that some receiver never accepts; None if there is none for a while."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        for place in reversed(list(world.book.at)):  # list() copies in one step, since another thread adds records
            event = world.book.at[place]
            if event.at < time.time() - JUST_NOW:
                break
            if any(each.temper.doomed(event.number) for each in world.book.owed_by(event)):
                return place
        yield 0.1
    return None


def _row_is_disrupted(world: World, place: Place) -> Disruption:
    """A worker that leaves meanwhile leaves this record unsettled, with attempts that no row counts."""
    return world.disrupt("a row that is not written", times=5, attempts=6, place=place)


def _writes(call: Call) -> bool:
    return call.sql.startswith(WRITES)


def _half_of_the_writes(call: Call) -> bool:
    return _writes(call) and random() < 0.5


def _oracle(world: World) -> EmulatedOracle:
    database = world.deployment.database
    assert isinstance(database, EmulatedOracle)
    return database


def _fault(name: str, play: Play, *more: str) -> Fault:
    return Fault(name, frozenset({"database", *more}), play)


ROW_REFUSED, ROW_LOCKED = Fault(REFUSED, frozenset({"rows"}), refuse_row), _fault(LOCKED, lock_row)
SQLITE = (
    _fault("tables away", _sqlite(lambda database: database.no_tables(*TABLES)), "rows"),
    _fault("database locked", _sqlite(lambda database: database.locked()), "rows"),
    _fault("insert fails in a batch", _sqlite(_broken_inserts), "rows"),
    ROW_REFUSED,
)
ORACLE = (
    _fault("sessions killed", kill_sessions),
    _fault(CUT, _failing(CUT, _writes, drop="before", times=4)),
    _fault(CUT_LATE, _failing(CUT_LATE, _writes, drop="after", times=4)),
    _fault(END_OF_FILE, _failing(END_OF_FILE, _writes, 3113, times=4)),
    _fault(LOST, _failing(LOST, lambda call: call.sql == "COMMIT", drop="after", times=6)),
    _fault(DEADLOCK, _failing(DEADLOCK, _half_of_the_writes, 60)),
    _fault(HUNG, hang),
    _fault("ORA-01017", rotate_password),
    _fault("listener down", close_listener),
    ROW_LOCKED,
)
FAIL_OVER = _fault(STARTS, fail_over)
