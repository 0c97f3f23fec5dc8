"""`make first-hour` on an emulated server: it says `not seen` where only a real one could tell."""

import re
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from consumer.database import migrations
from consumer.ledger import store
from tests.databases import connect_to
from tests.ledger.rows_kit import make_event, parked, run
from tests.oracle import first_hour
from tests.oracle.conftest import Start
from tests.oracle.due_plans import LOOK, NOT_SEEN, OK, Sent, judge_plan, statements, with_literals
from tests.oracle_emulator import PROFILE_19C, OracleEmulator, OracleError
from tests.oracle_emulator.statement import parse

PASSWORD = "only-here"
OF_A_DUE_KEY = {"GROUP_ID", "STATUS", "TOPIC", "PARTITION_NO", "SUBSCRIPTION_ID"}


@pytest.fixture
def server(start_oracle: Start) -> OracleEmulator:
    return start_oracle(PROFILE_19C, users={"webhooks": PASSWORD})


def tables(server: OracleEmulator) -> list[str]:
    engine = sa.create_engine(server.url)
    try:
        return sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def look(server: OracleEmulator, rows: int = 400) -> tuple[int, str]:
    said: list[str] = []
    status = first_hour.main(server.url, rows, said.append)
    return status, "\n".join(said)


def test_each_step_ends_with_a_verdict_and_no_table_is_left(server: OracleEmulator) -> None:
    """The program says `not seen` where the emulator cannot know, goes through all steps, and tells no password."""
    status, said = look(server)
    for title in first_hour.STEPS:
        assert title in said
    assert "has stopped" not in said
    assert PASSWORD not in said
    assert f"{OK}: the first ended, and the next is due at that second" in said
    assert f"{OK}: another answer of that length replaces it" in said
    for sender in ("scan", "fetch"):
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d: its plan: ORA-00900", said)
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d: .*logical reads: ORA-00942", said)
    assert f"{OK}: the type {first_hour.KIND} is stored, and read as it was" in said
    assert status == int(LOOK in said)
    assert tables(server) == []
    server.forget()  # it has no DBMS_STATS


def test_a_refused_statement_fails_its_step_alone(server: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict has Oracle's text, the next step begins on tables of its own, and the exit status is 1."""
    some = dict(list(first_hour.STEPS.items())[:2])
    monkeypatch.setattr(first_hour, "STEPS", some)
    server.inject("SET status.*COALESCE", OracleError(932, "inconsistent datatypes"), times=9)
    status, said = look(server)
    assert status == 1
    assert f"{LOOK}: the step has stopped: ORA-00932: inconsistent datatypes" in said
    assert f"{OK}: another answer of that length replaces it" in said
    assert tables(server) == []


def test_a_replaced_value_is_told(server: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that stores another letter without an error is the worst that the program can find."""
    park = store.park
    monkeypatch.setattr(first_hour, "STEPS", {"characters": first_hour.other_characters})
    monkeypatch.setattr(
        store, "park", lambda engine, group, _, now: park(engine, group, [parked(make_event(1), 1)], now)
    )
    status, said = look(server)
    assert status == 1
    assert f"{LOOK}: {first_hour.KIND} has become ['user.created'] without an error" in said


def test_a_schema_that_is_in_use_is_refused(server: OracleEmulator) -> None:
    """The program cannot know whose tables these are, so it drops none."""
    engine = sa.create_engine(server.url)
    run(engine, "CREATE TABLE webhook_subscriptions (id NUMBER)")
    engine.dispose()
    status, said = look(server)
    assert status == 2
    assert "webhook_subscriptions" in said
    assert tables(server) == ["webhook_subscriptions"]


@pytest.mark.parametrize("url", ["", f"oracle+oracledb://u:{PASSWORD}@x@127.0.0.1:1/", "sqlite:///nowhere.db"])
def test_a_url_of_no_oracle_is_one_line(url: str) -> None:
    """It exits with 2, and tells no part of a password."""
    said: list[str] = []
    assert first_hour.main(url, 1, said.append) == 2
    assert "ORACLE_URL" in said[0]
    assert PASSWORD not in said[0]


@pytest.mark.parametrize(
    ("operations", "verdict"),
    [
        (["COUNT STOPKEY", "VIEW", "INDEX RANGE SCAN"], OK),
        (["VIEW", "WINDOW NOSORT STOPKEY", "INDEX RANGE SCAN"], OK),
        (["VIEW", "WINDOW SORT PUSHED RANK", "INDEX RANGE SCAN"], LOOK),
        (["COUNT STOPKEY", "VIEW", "SORT ORDER BY STOPKEY", "INDEX RANGE SCAN"], LOOK),
        (["UNION ALL (RECURSIVE WITH)", "SORT AGGREGATE", "FIRST ROW", "INDEX RANGE SCAN (MIN/MAX)"], OK),
        (["UNION ALL (RECURSIVE WITH)", "SORT AGGREGATE", "INDEX RANGE SCAN"], LOOK),
        (["COUNT STOPKEY", "TABLE ACCESS FULL"], LOOK),
        (["COUNT STOPKEY", "TABLE ACCESS STORAGE FULL", "INDEX RANGE SCAN"], LOOK),
        (["COUNT STOPKEY", "INDEX FULL SCAN", "INDEX RANGE SCAN"], LOOK),
        (["VIEW", "INDEX RANGE SCAN"], LOOK),
    ],
)
def test_a_plan_is_judged_by_its_operations(operations: list[str], verdict: str) -> None:
    """Good is an index range scan that stops; a sort, a full scan or a scan without an end is not."""
    assert judge_plan("scan", "\n".join(operations)).verdict == verdict


def test_literals_stand_for_binds() -> None:
    """A text is quoted, a moment is a TIMESTAMP, and a colon in a text is no bind."""
    binds = {"a": "it's", "b": -5, "c": datetime(2026, 1, 2, 3, 4, 5, 6), "d": None}  # noqa: DTZ001 (the driver's own)
    sql = with_literals(Sent("SELECT 'HH:MI' FROM t WHERE a = :a AND b > :b AND c < :c AND d = :d", binds))
    wanted = "a = 'it''s' AND b > -5 AND c < TIMESTAMP '2026-01-02 03:04:05.000006' AND d = NULL"
    assert sql == f"SELECT 'HH:MI' FROM t WHERE {wanted}"  # noqa: S608 (it is compared)


def test_h2_looks_for_due_rows_in_the_index_of_heads(server: OracleEmulator) -> None:
    """Another optimizer than SQLite's chooses that index for both statements, by the columns up to the subscription."""
    engine = connect_to(server.url)
    migrations.upgrade(engine)
    list(first_hour._filled(engine, 2000))
    sent = {name: each for name, each in statements(engine, [("t", 0)]).items() if "next_attempt_at" in each.sql}
    engine.dispose()
    assert {name.split(",")[0] for name in sent} == {"scan", "fetch"}
    connection = server._instance.database.connect("WEBHOOKS")
    for each in sent.values():
        prepared = connection.prepare("EXPLAIN " + parse(with_literals(each)).h2[0])
        result: Any = connection.execute(prepared, [], 1).result
        assert result.next()
        plan = str(result.getString(1))
        used = re.findall(r"/\* WEBHOOKS\.([\w.]+):?([^*]*)\*/", plan)
        assert {index for index, _ in used} == {"IX_WEBHOOK_DELIVERIES_HEAD"}, plan
        for _, conditions in used:
            assert set(re.findall(r"[A-Z_]+", conditions)) >= OF_A_DUE_KEY, plan
    connection.close()
