"""Builders of ledger rows, and queries that read them back."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from sqlalchemy import Connection, Engine, event, text, update

from consumer.crypto.vault import Decrypt
from consumer.events.event import Event, RecordId, extra_of
from consumer.ledger import assigned, due, store
from consumer.ledger.rows import (
    AttemptFailure,
    AttemptResult,
    DueDelivery,
    NewDelivery,
    OperationalEvent,
    OrderingKey,
    order_key,
    time_or_none,
)
from models import StoredCursor
from tests.crypto.vaults import in_the_clear

GROUP = "webhooks"
URL = "https://example.com/hook"
DEFAULT = (b"default",)
PLACES = [("t", 0), ("t", 1), ("u", 0)]
Result = Literal["delivered", "parked", "exhausted"]
BOOM = AttemptFailure("boom", 503, "<h1>no</h1>", 95.0)


def make_event(offset: int = 0, *, topic: str = "t", partition: int = 0, body: bytes = b"{}", **more: object) -> Event:
    record = RecordId(topic, partition, offset, 1_700_000_000_000 + offset)
    plain = Event(record, "user.created", f"msg_{offset}", body, "application/json", None, None)
    event = plain._replace(**more)  # type: ignore[arg-type]  # a test's shorthand
    return event._replace(extra=extra_of(event.key, event.headers))


def parked(event: Event, subscription: int, at: float = 100.0, *, attempt: int = 1, **more: object) -> NewDelivery:
    failure = BOOM if attempt else None
    row = NewDelivery(event, subscription, URL, attempt, "parked", at, failure, failure)
    return row._replace(**more)  # type: ignore[arg-type]  # a test's shorthand


def ordered(offset: int, subscription: int, key: bytes = b"k", *, partition: int = 0, **more: object) -> NewDelivery:
    """A delivery of an ordered subscription, not tried yet."""
    event = make_event(offset, partition=partition, key=key)
    row = parked(event, subscription, attempt=0, ordering_key=ordering_key(subscription, key, partition))
    return row._replace(**more)  # type: ignore[arg-type]  # a test's shorthand


def ordering_key(subscription: int, key: bytes = b"k", partition: int = 0) -> OrderingKey:
    return OrderingKey(subscription, "t", partition, order_key(key))


def park(engine: Engine, *rows: NewDelivery, group: str = GROUP, now: float = 96.0) -> None:
    """Stores rows, as a worker of the group does."""
    store.park(engine, group, rows, now)


def find(
    engine: Engine,
    now: float = 1000.0,
    *,
    places: Sequence[tuple[str, int]] = PLACES,
    room: int = 1000,
    here: Collection[int] = (),
    decrypt: Decrypt = in_the_clear,
) -> list[DueDelivery]:
    """The due rows of each partition and subscription, earliest first."""
    walked = assigned.scan(engine, GROUP, places, None)
    assert walked.end is None
    wants = [due.FetchRequest(due_key, room, frozenset(here)) for due_key in walked.due_keys]
    return due.fetch(engine, GROUP, wants, now, default_secrets=DEFAULT, decrypt=decrypt).rows


def result(row: DueDelivery, status: Result, at: float | None = None, *, error: str = "boom") -> AttemptResult:
    """The result of one more attempt of a row, at 2000."""
    failure = None if status == "delivered" else AttemptFailure(error, 500, "sorry", 1999.0)
    code = 500 if failure else 200
    return AttemptResult(row.id, row.attempt, status, at, code, failure, 2000.0, row.ordering_key)


def operation(number: int = 1) -> OperationalEvent:
    return OperationalEvent("delivery.exhausted", f"op_{number}", {"subscription": 1, "error": "é"})


def offsets(rows: Iterable[DueDelivery]) -> list[int]:
    return [row.event.record.offset for row in rows]


def states(engine: Engine, subscription: int | None = None) -> dict[int, str]:
    """The status of each offset."""
    where = "" if subscription is None else f"WHERE subscription_id = {subscription}"
    found = query(engine, f"SELECT record_offset, status FROM webhook_deliveries {where} ORDER BY id")  # noqa: S608 (a number)
    return {row[0]: row[1] for row in found}


def counts(engine: Engine, group: str = GROUP) -> dict[str, int]:
    """The number of a group's rows in each status."""
    sql = "SELECT status, count(*) FROM webhook_deliveries WHERE group_id = :g GROUP BY status"
    return {row[0]: row[1] for row in query(engine, sql, g=group)}


def query(engine: Engine, sql: str, **binds: object) -> list[Any]:
    """Runs plain SQL, as another program would."""
    with engine.connect() as connection:
        return list(connection.execute(text(sql), binds))


def expire(engine: Engine, subscription: int, at: float | None, partition: int = 0) -> None:
    """Retention removes the next record of the subscription's cursors in a partition at `at` (unix seconds)."""
    cursor = StoredCursor
    mine = cursor.subscription_id == subscription, cursor.partition_no == partition
    with engine.begin() as connection:
        connection.execute(update(cursor).where(*mine).values(expires_at=time_or_none(at)))


def run(engine: Engine, sql: str, **binds: object) -> None:
    """Runs plain SQL that changes rows, as an administrator would at a prompt."""
    with engine.begin() as connection:
        connection.execute(text(sql).bindparams(**binds))


class LostAnswer(Exception):
    """The commit succeeded, but its answer was lost."""


def losing_the_answer(engine: Engine, work: Callable[[], object]) -> None:
    """Runs `work`, whose first commit succeeds but seems to fail."""
    commit = engine.dialect.do_commit
    with pytest.MonkeyPatch.context() as patch:

        def lose(connection: Any) -> None:
            commit(connection)
            patch.undo()
            raise LostAnswer

        patch.setattr(engine.dialect, "do_commit", lose)
        with pytest.raises(LostAnswer):
            work()


@contextmanager
def _each_statement(engine: Engine, tell: Callable[..., None]) -> Iterator[None]:
    """Call `tell` before each statement, with the arguments of SQLAlchemy's `before_cursor_execute`."""
    event.listen(engine, "before_cursor_execute", tell)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", tell)


def statements(engine: Engine, work: Callable[[], object]) -> list[str]:
    """The statements that `work` sends, with those that begin and end transactions."""
    found: list[str] = []

    def note(*call: Any) -> None:
        found.append(call[2])

    with _each_statement(engine, note):
        work()
    return found


def plans(engine: Engine, work: Callable[[], object]) -> list[tuple[str, str]]:
    """Each statement that `work` runs, with SQLite's plan of it."""
    found: list[tuple[str, str]] = []

    def explain(connection: Connection, _: object, statement: str, parameters: Any, __: object, many: bool) -> None:  # noqa: FBT001 (SQLAlchemy's signature)
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            raw = connection.connection.cursor()
            raw.execute("EXPLAIN QUERY PLAN " + statement, parameters[0] if many else parameters)
            found.append((statement, " | ".join(row[3] for row in raw.fetchall())))
            raw.close()

    with _each_statement(engine, explain):
        work()
    return found
