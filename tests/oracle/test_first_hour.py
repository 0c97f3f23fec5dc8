"""`make first-hour` on an emulated server: `not seen` where only a real one could tell."""

import re
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from consumer.database import migrations
from tests.databases import connect_to
from tests.first_hour import __main__ as first_hour
from tests.first_hour import estate
from tests.first_hour.adoption import Inserts
from tests.first_hour.all_statements import _wrong, typed
from tests.first_hour.due_rows import judge_plan, statements
from tests.first_hour.verdicts import LOOK, NOT_SEEN, OK, Finding, Sent, with_literals
from tests.ledger.rows_kit import run
from tests.oracle.conftest import Start
from tests.oracle.connection_kit import tables
from tests.oracle_emulator import PROFILE_19C, OracleEmulator
from tests.oracle_emulator.statement import parse

PASSWORD = "only-here"
OF_A_DUE_KEY = {"GROUP_ID", "STATUS", "TOPIC", "PARTITION_NO", "SUBSCRIPTION_ID"}
# What an emulated server shows: the rest needs a real one.
SHOWN = (
    "the character set holds all values",
    r"a look-up of 8 types and tenants: [\d.]+ s",
    r"a look-up of 4,096 types and tenants: [\d.]+ s",
    r"a fetch of 32 due keys, 32 in a statement: [\d.]+ s",
    r"a probe: [\d.]+ s",
    "no deadlock and no other error beside each other",
    r"a call that waits for a lock ends after [\d.]+ s: DPY-4024",
    r"a call that was cut leaves its lock for [\d.]+ s",
    r"a killed process leaves its lock for [\d.]+ s",
    r"\d+ inserts beside the migration, the longest took [\d.]+ s",
    r"(\d+) rows after the migration and back, \1 were inserted",
)
UNSEEN = (
    "parameters", "the account webhooks_service", "statistics of WEBHOOK_DELIVERIES", "the state of the indexes",
    "plans of the statements", "redo of a stored delivery", "waits for blocks and rows", "a killed session",
    "parse times and child cursors", "adoption with a trigger", r"adoption with an index on LOWER\(url\)",
)  # fmt: skip


@pytest.fixture
def server(start_oracle: Start) -> OracleEmulator:
    return start_oracle(PROFILE_19C, users={"webhooks": PASSWORD})


def test_each_part_gets_a_verdict_and_no_table_is_left(server: OracleEmulator) -> None:
    """The program says `not seen` where the emulator cannot know, goes on, and tells no password."""
    lines: list[str] = []
    status = first_hour.main(server.url, 400, lines.append)
    said = "\n".join(lines)
    assert PASSWORD not in said
    for each in SHOWN:  # a time is too long or not, which a busy machine decides
        assert re.search(rf"^(?:{OK}|{LOOK}): {each}", said, re.MULTILINE), (each, said)
    for each in UNSEEN:
        assert re.search(rf"^{NOT_SEEN}: {each}", said, re.MULTILINE), (each, said)
    for sender in ("scan", "fetch"):
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d, nine of ten pruned: its plan: ORA-00900", said)
        assert re.search(rf"{NOT_SEEN}: {sender}, statement \d, .*logical reads: ORA-00942", said)
    assert status == int(LOOK in said)
    assert [line for line in lines if line.startswith(LOOK) and "would do" not in line] == []
    assert tables(server.url) == []
    server.forget()  # it has no PL/SQL, and not all definitions


def test_a_part_that_fails_is_a_verdict(server: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other parts go on, and the schema is emptied."""

    def fail() -> Any:
        raise RuntimeError("boom")

    parts = {"first": fail, "second": lambda: iter([Finding(OK, "it went on")])}
    monkeypatch.setattr(first_hour, "parts", lambda *_: parts)
    lines: list[str] = []
    assert first_hour.main(server.url, 1, lines.append) == 1
    assert lines[1:] == [f"{LOOK}: first: RuntimeError: boom", f"{OK}: it went on", f"1 {LOOK}, 1 {OK}"]
    assert tables(server.url) == []


def test_a_schema_that_is_in_use_is_refused(server: OracleEmulator) -> None:
    """The program cannot know whose tables these are, so it drops none."""
    engine = connect_to(server.url)
    run(engine, "CREATE TABLE webhook_subscriptions (id NUMBER)")
    engine.dispose()
    assert first_hour.main(server.url, 400, lambda _: None) == 2
    assert tables(server.url) == ["webhook_subscriptions"]


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


class Row(NamedTuple):
    operation: str
    options: str | None
    object_name: str | None


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (Row("TABLE ACCESS", "STORAGE FULL", "WEBHOOK_DELIVERIES"), ["a full scan of WEBHOOK_DELIVERIES"]),
        (Row("TABLE ACCESS", "FULL", "WEBHOOK_REPLAYS"), []),
        (Row("TABLE ACCESS", "BY INDEX ROWID", "WEBHOOK_DELIVERIES"), []),
        (Row("HASH JOIN", "RIGHT ANTI", None), ["HASH JOIN RIGHT ANTI"]),
        (Row("NESTED LOOPS", "ANTI", None), []),
        (Row("SORT", "ORDER BY STOPKEY", None), ["SORT ORDER BY STOPKEY"]),
        (Row("SORT", "AGGREGATE", None), []),
        (Row("COUNT", "STOPKEY", None), []),
    ],
)
def test_an_operation_that_reads_too_much_is_named(row: Row, wrong: list[str]) -> None:
    """A full scan of a large table, a sort of all waiting rows, and a join of them."""
    assert _wrong([row]) == wrong


def test_binds_are_of_their_columns_types() -> None:
    """EXPLAIN PLAN takes a bare bind for text; a text in quotes has none."""
    sql = "SET next_attempt_at = :b_next_attempt_at WHERE id IN (:id_1_12) AND topic = ':id' AND topic = :topic_1"
    wanted = "SET next_attempt_at = CAST(:b_next_attempt_at AS TIMESTAMP) WHERE id IN (CAST(:id_1_12 AS NUMBER))"
    assert typed(f"{sql} RETURNING id INTO :ret") == f"{wanted} AND topic = ':id' AND topic = :topic_1"


def test_inserts_that_fail_are_told(server: OracleEmulator) -> None:
    """A team's program that cannot insert while the tables change is a finding."""
    engine = connect_to(server.url)
    inserts = Inserts(engine)
    inserts.insert()
    engine.dispose()
    assert inserts.verdict().verdict == LOOK
    assert "1 failed: ORA-00942" in inserts.verdict().text


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
    list(estate.filled(engine, 2000))
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
