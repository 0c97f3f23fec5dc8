"""The engine's guarantees, the classification of errors, and the thread that runs statements."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import oracledb
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from consumer.database.engine import DatabaseThread, _explained, _log_ahead, create_file, ping, reading, unavailable
from consumer.database.errors import is_outage
from consumer.database.statements import IN_LIST, PIECE, any_of, in_pieces, pieces, pieces_of
from consumer.errors import DatabaseTooSlow, DatabaseUnavailable, SettingsError
from models import Subscription
from tests.databases import ORACLE, connect_to, on_oracle
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture: what speaks SQL)
from tests.oracle_emulator import OracleEmulator, OracleError

INSERT = "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://example.com/hook', 'user.created')"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    """It would lose its content. The error names the setting and shows a valid value."""
    with pytest.raises(SettingsError, match=r"DATABASE_URL=sqlite:///webhooks\.db"):
        connect_to(url)


def test_an_engine_does_not_connect_by_itself(tmp_path: Path) -> None:
    """Creating an engine touches neither file nor network."""
    connect_to(f"sqlite:///{tmp_path}/x.db")
    connect_to("oracle+oracledb://scott:tiger@nowhere.invalid/?service_name=X")
    assert list(tmp_path.iterdir()) == []


def test_sqlite_is_durable_and_shared(sqlite_engine: Engine) -> None:
    """SQLite uses the write-ahead log, full sync and foreign keys, and waits for a lock."""
    with sqlite_engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_new_file_waits_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That one writes before the file has a write-ahead log, as when two processes migrate at once."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(_log_ahead.retry, "sleep", lambda _: writer.execute("COMMIT"))
        with connect_to(f"sqlite:///{path}").connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_readers_do_not_wait_for_a_writer(engine: Engine) -> None:
    """While one transaction has uncommitted writes, another reads the earlier state."""
    with engine.begin() as writer:
        writer.exec_driver_sql(INSERT)
        with reading(engine) as reader:
            assert reader.execute(sa.select(Subscription.id)).all() == []


def test_writers_take_turns(sqlite_engine: Engine) -> None:
    """Eight threads that read and then write lose no update and see no error: SQLite's lock is taken at BEGIN."""
    engine = sqlite_engine
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)

    def work() -> None:
        for _ in range(10):
            with engine.begin() as connection:
                length = connection.exec_driver_sql("SELECT LENGTH(url) FROM webhook_subscriptions").scalar_one()
                connection.exec_driver_sql("UPDATE webhook_subscriptions SET url = ?", ("x" * (length + 1),))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        length = connection.exec_driver_sql("SELECT LENGTH(url) FROM webhook_subscriptions").scalar_one()
    assert length == len("https://example.com/hook") + 80


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=3000))
def test_a_padded_list_means_the_same(values: list[int]) -> None:
    """Padding adds and loses no element, and no list exceeds Oracle's limit."""
    clause = any_of(sa.column("id", sa.Integer), values)
    compiled = sa.select(sa.literal(1)).where(clause).compile()
    lists = list(compiled.params.values())
    found = [value for parameter in lists if isinstance(parameter, list) for value in parameter]
    assert set(found) == set(values)
    assert all(len(parameter) <= IN_LIST for parameter in lists if isinstance(parameter, list))


@pytest.mark.parametrize("number", [1, 3, 1000, 2500])
def test_a_list_of_any_length_is_accepted(engine: Engine, number: int) -> None:
    """Oracle refuses a list of more than 1,000 elements (ORA-01795)."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        among = sa.select(Subscription.id).where(any_of(Subscription.id.expression, range(1, number + 1)))
        assert connection.scalars(among).all() == [1]


def test_lists_of_any_length_are_few_statements() -> None:
    """Two thousand lengths of an IN list make a dozen cursors in Oracle, not two thousand."""
    texts = {
        str(
            sa.select(sa.literal(1))
            .where(any_of(sa.column("id", sa.Integer), list(range(length))))
            .compile(dialect=ORACLE, compile_kwargs={"render_postcompile": True})
        )
        for length in range(1, 2001)
    }
    assert len(texts) == 12


class Said(SimpleNamespace):
    """The driver's description of an error: `str` is its message."""

    def __str__(self) -> str:
        return str(self.message)


def oracle_error(code: str, kind: type[oracledb.Error], more: str = "") -> oracledb.Error:
    """An error as the driver raises it; `more` follows the code in its message."""
    return kind(Said(full_code=code, code=int(code[4:]), message=f"{code}: {more}"))


def meaning(code: str, kind: type[oracledb.Error] = oracledb.DatabaseError) -> DatabaseUnavailable | None:
    """The classification of an error."""
    wrapped = DBAPIError.instance("SELECT secret", {"x": "pa55word"}, oracle_error(code, kind), oracledb.Error)
    assert isinstance(wrapped, Exception)
    found = unavailable(wrapped)
    assert "secret" not in str(found)
    assert "pa55word" not in str(found)
    return found


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    """It passes, so that a worker waits; the line says which disk to look at."""
    create_file(engine := connect_to(f"sqlite:///{tmp_path}/x.db"))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(DBAPIError) as caught:
            connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
    engine.dispose()
    told = unavailable(caught.value)
    assert str(told).startswith("database or disk is full (free space on the disk of the file in DATABASE_URL")


def test_a_failed_open_takes_no_lock_from_open_connections(tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any descriptor of it."""
    create_file(engine := connect_to(f"sqlite:///{tmp_path}/x.db"))
    other = "import sqlite3; c = sqlite3.connect('x.db'); c.execute('SELECT 1 FROM sqlite_master'); c.close()"
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        connection.commit()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname, error.sqlite_errorcode = "SQLITE_IOERR", 10
        assert "disk I/O error" in str(_explained(error, tmp_path / "x.db"))
        subprocess.run([sys.executable, "-c", other], cwd=tmp_path, check=True)
        assert (tmp_path / "x.db-wal").exists()  # else its commits are lost
    engine.dispose()


@pytest.mark.parametrize(
    "code",
    [
        *("ORA-03113", "DPY-4011", "DPY-6005", "ORA-01012", "ORA-01089"),  # lost, shut down
        *("ORA-00060", "ORA-00942", "ORA-01017"),  # deadlock, not migrated yet, password rotated
        *("ORA-01653", "ORA-04031", "ORA-00376", "ORA-01591"),  # space, memory, files, other sessions: a DBA resolves
        *("ORA-00018", "ORA-01502", "ORA-01536", "ORA-02391", "ORA-28365", "ORA-30036"),
    ],
)
def test_a_transient_error_is_an_outage(code: str) -> None:
    """The batch is kept whole and retried; its entries are not tried one by one and set aside."""
    lost = code in {"ORA-03113", "DPY-4011", "DPY-6005"}
    assert is_outage(meaning(code, oracledb.OperationalError if lost else oracledb.DatabaseError))


@pytest.mark.parametrize("code", ["ORA-00001", "ORA-01400", "ORA-00933", "ORA-01795"])
def test_a_mistake_is_no_outage(code: str) -> None:
    """A statement or value of ours that is wrong keeps its type."""
    assert meaning(code) is None


@pytest.mark.parametrize("code", ["ORA-00040", "ORA-02393", "ORA-02395", "ORA-56720", "ORA-56735", "DPY-4024"])
def test_a_call_that_exceeds_a_server_limit_is_too_slow(code: str) -> None:
    """The batch is halved, as after a time-out of our own."""
    assert isinstance(meaning(code), DatabaseTooSlow)


@pytest.mark.parametrize(
    ("cause", "known"),
    [("ORA-01652: unable to extend temp segment", True), ("ORA-01722: invalid number", False)],
)
def test_a_parallel_query_fails_as_its_cause_does(cause: str, known: bool) -> None:  # noqa: FBT001 (a table's column)
    """Oracle answers with ORA-12801, and names the cause in the next line."""
    error = oracle_error("ORA-12801", oracledb.DatabaseError, f"error signaled in parallel query server P001\n{cause}")
    wrapped = DBAPIError.instance("SELECT", {}, error, oracledb.Error)
    assert isinstance(wrapped, Exception)
    assert is_outage(unavailable(wrapped)) is known


@pytest.mark.parametrize(
    "code",
    [
        *("ORA-01012", "ORA-01034", "ORA-01089", "ORA-01092", "ORA-12570", "ORA-25408", "DPY-4024"),
        *("ORA-02392", "ORA-02394", "ORA-02399"),  # limits of a session: the server ends it
    ],
)
def test_disconnects_that_sqlalchemy_does_not_know(code: str) -> None:
    """After these errors the connection is discarded."""
    engine = connect_to("oracle+oracledb://scott:tiger@nowhere.invalid/?service_name=X")
    error = oracle_error(code, oracledb.DatabaseError)
    assert not engine.dialect.is_disconnect(error, None, None)  # type: ignore[arg-type]  # the driver has no types
    context = SimpleNamespace(original_exception=error, is_disconnect=False, is_pre_ping=False)
    for handler in engine.dialect.dispatch.handle_error:
        handler(context)
    assert context.is_disconnect


def test_sqlite_errors_are_told_apart(sqlite_engine: Engine, tmp_path: Path) -> None:
    """A file that is not migrated yet is a transient error; a violated constraint is not."""
    bare = connect_to(f"sqlite:///{tmp_path}/bare.db")
    create_file(bare)
    with pytest.raises(DBAPIError) as caught, bare.begin() as connection:
        connection.execute(sa.select(Subscription.id))
    assert "run kafka-webhooks migrate" in str(unavailable(caught.value))
    bare.dispose()
    with pytest.raises(IntegrityError) as refused, sqlite_engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO webhook_subscriptions (url) VALUES ('x')")
    assert unavailable(refused.value) is None


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("missing/x.db", "there is no directory {folder}/missing: make it, or correct DATABASE_URL"),
        ("folder.db", "Is a directory: correct DATABASE_URL, or the owner or mode of the file and its directory"),
        ("text.db", "it is not an SQLite database: correct DATABASE_URL"),
        ("misspelt.db", "there is no such file: correct DATABASE_URL, or make it with kafka-webhooks migrate"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path: Path, place: str, why: str) -> None:
    """It is a transient error whose line has the path and the remedy. No file is created by the check."""
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("no database, but longer than a header " * 20)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DatabaseUnavailable) as caught:
        ping(connect_to(f"sqlite:///{tmp_path}/{place}"))
    assert str(caught.value) == f"{tmp_path}/{place} cannot be opened: {why.format(folder=tmp_path)}"
    assert sorted(tmp_path.iterdir()) == before


def test_only_a_migration_creates_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may be relative, and have characters that a URI must escape."""
    monkeypatch.chdir(tmp_path)
    engine = connect_to("sqlite:///ä 100%#?.db".replace("?", "%3F"))
    with pytest.raises(DatabaseUnavailable, match="no such file"):
        ping(engine)
    create_file(engine)
    create_file(engine)
    ping(engine)
    engine.dispose()
    assert len(list(tmp_path.glob("*.db"))) == 1
    with pytest.raises(DatabaseUnavailable, match=r"no-such-device.db cannot be created: No such file or dir"):
        create_file(connect_to("sqlite:////proc/no-such-device.db"))
    with pytest.raises(DatabaseUnavailable, match=r"cannot be created: there is no directory .*/missing: make it"):
        create_file(connect_to("sqlite:///missing/x.db"))


def test_ping_says_why_on_one_line() -> None:
    """If no listener is at the port, one line within the connect time-out has the address, without the password."""
    with pytest.raises(
        DatabaseUnavailable, match=r"127\.0\.0\.1:1: DPY-6005.*are host and port in DATABASE_URL"
    ) as caught:
        ping(connect_to("oracle+oracledb://scott:pa55word@127.0.0.1:1/?service_name=X"))
    assert "\n" not in str(caught.value)
    assert "pa55word" not in str(caught.value)


class Loop:
    """The loop's queue of callbacks, which the test runs turn by turn."""

    def __init__(self) -> None:
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, callback: Callable[[], None]) -> None:
        self._posted.put(callback)

    def turn(self) -> None:
        self._posted.get(timeout=60)()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def thread(loop: Loop) -> Iterator[DatabaseThread]:
    result = DatabaseThread("database-test", loop.post)
    yield result
    assert result.close(10)


def test_jobs_run_in_order_on_one_other_thread(thread: DatabaseThread, loop: Loop) -> None:
    """Jobs run one by one on the thread, and their outcomes reach the loop in order."""
    numbers = count()
    outcomes: list[object] = []
    here: set[str] = set()

    def done(outcome: object) -> None:
        here.add(threading.current_thread().name)
        outcomes.append(outcome)

    for _ in range(20):
        thread.submit(lambda: (next(numbers), threading.current_thread().name), done)
    for _ in range(20):
        loop.turn()
    assert outcomes == [(number, "database-test") for number in range(20)]
    assert here == {threading.current_thread().name}


def test_a_lost_database_arrives_as_unavailable(thread: DatabaseThread, loop: Loop, tmp_path: Path) -> None:
    """A transient error is delivered as DatabaseUnavailable and a mistake as itself; the thread goes on."""
    outcomes: list[object] = []
    engine = connect_to(f"sqlite:///{tmp_path}/missing/x.db")
    mistake = KeyError("column")

    def fail() -> None:
        raise mistake

    thread.submit(engine.connect, outcomes.append)
    thread.submit(fail, outcomes.append)
    thread.submit(lambda: "fine", outcomes.append)
    for _ in range(3):
        loop.turn()
    assert isinstance(outcomes[0], DatabaseUnavailable)
    assert outcomes[1:] == [mistake, "fine"]


def test_closing_finishes_submitted_jobs(loop: Loop) -> None:
    """Parking must finish at shutdown: close returns after the last job, and later jobs are refused."""
    thread = DatabaseThread("closing", loop.post)
    outcomes: list[int] = []
    numbers = count()
    for _ in range(100):
        thread.submit(
            lambda: next(numbers), lambda outcome: outcomes.append(outcome) if isinstance(outcome, int) else None
        )
    assert thread.close(10)
    for _ in range(100):
        loop.turn()
    assert outcomes == list(range(100))
    with pytest.raises(RuntimeError, match="closed"):
        thread.submit(lambda: None, lambda _: None)


def test_closing_gives_up_on_a_hung_job(loop: Loop) -> None:
    """A statement that hangs in the driver does not keep the process alive: close reports that time ran out."""
    thread = DatabaseThread("hung", loop.post)
    release = threading.Event()
    thread.submit(release.wait, lambda _: None)
    assert not thread.close(0.05)
    release.set()
    assert thread.close(10)


@on_oracle
@pytest.mark.parametrize("code", [1031, 41900])
def test_a_missing_grant_is_a_transient_error(engine: Engine, emulator: OracleEmulator, code: int) -> None:
    """Workers wait for the DBA, and the error names the page that lists the grants."""
    with engine.connect() as connection:
        emulator.inject("^SELECT 1", OracleError(code, "insufficient privileges"), times=9)
        with pytest.raises(DBAPIError) as refused:
            connection.exec_driver_sql("SELECT 1 FROM dual")
    assert "lacks a grant of docs/database.md" in str(unavailable(refused.value))


@pytest.mark.parametrize("text", [None, "", "x", "x" * PIECE, "é" * (PIECE + 1), "x" * 2048, "x" * 5000])
def test_a_text_is_kept(sqlite_engine: Engine, text: str | None) -> None:
    """The database puts the pieces together, of a text beyond its column too, which then equals no value there."""
    with sqlite_engine.connect() as connection:
        assert connection.scalar(select(in_pieces(Subscription.url, text))) == text  # type: ignore[call-overload]
        assert connection.scalar(select(pieces_of("b", 5000)), pieces("b", 5000, text)) == text


def test_a_short_column_takes_its_value_as_it_is() -> None:
    """Numbers and short texts need no pieces."""
    assert in_pieces(Subscription.event_type, "order.created") == "order.created"
    assert in_pieces(Subscription.rate_limit, 1.5) == 1.5
