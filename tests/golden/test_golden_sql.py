"""The files in docs/sql/oracle: what Oracle really gets, and all of it."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from consumer.ledger import admin, upkeep
from consumer.ledger.admin import DeliveryQuery
from consumer.matching.catalog import find_endpoints
from models import Payload
from tests.crypto.vaults import in_the_clear
from tests.golden.golden_check import look, seen, unknown
from tests.golden.golden_sql import COMMAND, FOLDER, MIGRATIONS, ROOT, SESSION, blocks, known
from tests.golden.golden_statements import CHOICE, files, printed_migrations
from tests.ledger.rows_kit import GROUP, URL
from tests.oracle.oracle_databases import start_emulator
from tests.oracle_emulator import PROFILES

STALE = f"is not what Oracle gets now: run `{COMMAND}`, and look at what changes"
HEADED = 3  # lines: function, purpose, and the statement's first


@pytest.fixture
def watched(new_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """An engine, and nothing known yet of what was looked up before."""
    engine = new_engine()
    event.listen(engine, "before_cursor_execute", look)
    seen.clear()
    yield engine
    unknown.clear()
    engine.dispose()


@pytest.mark.oracle
@pytest.mark.parametrize("profile", PROFILES)
def test_the_driver_sends_what_the_files_say(profile: str) -> None:
    """The text on the wire, to either release; no statement is without a word on what it is for."""
    with start_emulator(PROFILES[profile]) as oracle:
        texts = files(oracle)
        assert oracle.failures == []
    there = {path.name: path.read_text() for path in FOLDER.glob("*.sql") if path != MIGRATIONS}
    assert there.keys() == texts.keys(), f"docs/sql/oracle {STALE}"
    for name, text in texts.items():
        assert there[name] == text, f"docs/sql/oracle/{name} {STALE}"


def test_alembic_prints_what_the_file_says() -> None:
    """A migration that changes shows its SQL in the same review."""
    assert MIGRATIONS.read_text() == printed_migrations(), f"docs/sql/oracle/{MIGRATIONS.name} {STALE}"


def test_each_statement_is_headed_by_who_issues_it() -> None:
    """A function that is there, and a line on what it is for."""
    for path in set(FOLDER.glob("*.sql")) - {MIGRATIONS, SESSION}:
        for block in blocks(path.read_text()):
            function, purpose, *_ = block.strip().splitlines()
            *module, name = function.removeprefix("-- ").split(".")
            source = ROOT.joinpath("consumer", *module).with_suffix(".py").read_text()
            assert f"def {name}(" in source, function
            assert purpose.startswith("-- "), function


def test_a_statement_that_no_file_has_is_noticed(watched: Engine) -> None:
    """Of `consumer`, wherever it runs; another program's statements are not looked at."""
    issue = "def ask(engine, statement):\n    with engine.connect() as connection: connection.execute(statement)"
    for place in ("tests", "consumer"):
        assert not unknown
        scope: dict[str, Any] = {}
        exec(compile(issue, ROOT / place / "added.py", "exec"), scope)  # noqa: S102 (ours, as if it stood in that file)
        scope["ask"](watched, select(Payload.topic))
    ((sql, function),) = unknown.items()
    assert function == "added.ask"
    assert "webhook_payloads.topic" in sql


def test_what_differs_between_calls_is_no_other_statement(watched: Engine) -> None:
    """Lists of any length, numbers of rows, and any of the conditions that may be asked for."""
    for number in (1, 3, 512, 2000):
        find_endpoints(watched, [(f"t{each}", None) for each in range(number)], (b"k",), in_the_clear)
    choice: Any = CHOICE | {"event_type": "t"}
    for size in range(len(choice) + 1):
        for names in combinations(choice, size):
            chosen = {name: choice[name] for name in names}
            admin.find(watched, limit=size + 1, **chosen)
            list(admin.redeliver(watched, DeliveryQuery(ids=[1, 2, 3], **chosen), 1.0))
    upkeep.disable(watched, GROUP, 1, "410", url=URL)
    assert unknown == {}


def test_a_condition_more_is_another_statement() -> None:
    """And one less, where it is not said that it may be missing."""
    due_key = "SELECT webhook_subscriptions.id FROM webhook_subscriptions WHERE "
    assert not known().has(due_key + "webhook_subscriptions.id = :id_1")
    block = blocks((FOLDER / "ledger_storing.sql").read_text())[0]
    sql = "\n".join(block.splitlines()[HEADED - 1 :])
    assert known().has(sql)
    assert not known().has(sql.replace("\n  AND webhook_payloads.topic = :topic_1", ""))
    assert not known().has(sql + "\n  AND webhook_payloads.has_key = :has_key_1")
