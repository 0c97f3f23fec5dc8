"""The plans of `make first-hour` on an emulated server: `not seen` where only a real one could tell."""

import re
from datetime import datetime
from typing import Any

import pytest

from consumer.database import migrations
from tests.databases import connect_to
from tests.ledger.rows_kit import run
from tests.oracle import due_plans
from tests.oracle.conftest import Start
from tests.oracle.connection_kit import tables
from tests.oracle.due_plans import LOOK, NOT_SEEN, OK, Sent, judge_plan, statements, with_literals
from tests.oracle_emulator import PROFILE_19C, OracleEmulator
from tests.oracle_emulator.statement import parse

PASSWORD = "only-here"
OF_A_DUE_KEY = {"GROUP_ID", "STATUS", "TOPIC", "PARTITION_NO", "SUBSCRIPTION_ID"}


@pytest.fixture
def server(start_oracle: Start) -> OracleEmulator:
    return start_oracle(PROFILE_19C, users={"webhooks": PASSWORD})


def test_each_statement_gets_a_verdict_and_no_table_is_left(server: OracleEmulator) -> None:
    """The program says `not seen` where the emulator cannot know, and tells no password."""
    lines: list[str] = []
    status = due_plans.main(server.url, 400, lines.append)
    said = "\n".join(lines)
    assert PASSWORD not in said
    assert f"{OK}: the character set holds all values" in said
    for sender in ("scan", "fetch"):
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d: its plan: ORA-00900", said)
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d: .*logical reads: ORA-00942", said)
    assert status == int(LOOK in said)
    assert tables(server.url) == []
    server.forget()  # it has no DBMS_STATS


def test_a_schema_that_is_in_use_is_refused(server: OracleEmulator) -> None:
    """The program cannot know whose tables these are, so it drops none."""
    engine = connect_to(server.url)
    run(engine, "CREATE TABLE webhook_subscriptions (id NUMBER)")
    engine.dispose()
    assert due_plans.main(server.url, 400, lambda _: None) == 2
    assert tables(server.url) == ["webhook_subscriptions"]


@pytest.mark.parametrize("url", ["", f"oracle+oracledb://u:{PASSWORD}@x@127.0.0.1:1/", "sqlite:///nowhere.db"])
def test_a_url_of_no_oracle_is_one_line(url: str) -> None:
    """It exits with 2, and tells no part of a password."""
    said: list[str] = []
    assert due_plans.main(url, 1, said.append) == 2
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
    list(due_plans.filled(engine, 2000))
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
