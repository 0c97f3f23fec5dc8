"""Accounts without tables of their own: the documented grants allow all of their work, and no more."""

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import sqlglot
from alembic import command
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlglot import exp

from consumer.database import migrations
from consumer.database.engine import lossy_commits, unavailable
from consumer.ops import check
from consumer.subscriptions import repository
from models import Base
from tests.databases import connect_to
from tests.ledger.rows_kit import query
from tests.oracle.accounts import ACCOUNTS, granted, statements
from tests.oracle_emulator import OracleEmulator, OracleError

SERVICE = "WEBHOOKS_SERVICE"
OURS = {*Base.metadata.tables, "webhook_alembic_version"}


@pytest.fixture
def service(oracle: OracleEmulator) -> Iterator[Engine]:
    """The engine of an account without tables, on the tables of another account."""
    owner = connect_to(oracle.url)
    migrations.upgrade(owner)
    oracle.add_user(SERVICE, "secret")
    engine = connect_to(oracle.url_of(SERVICE), str(owner.url.username).upper())
    yield engine
    engine.dispose()
    owner.dispose()


def needed(sql: str) -> set[tuple[str, str]]:
    """The privileges on our tables that a statement needs.

    With SQL92_SECURITY, true from 12.2 on, a change whose conditions name columns also needs SELECT.
    """
    statement = sqlglot.parse_one(sql, dialect="oracle")
    assert isinstance(statement, exp.Query | exp.DML), sql
    verbs = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE"}
    verb = next((word for kind, word in verbs.items() if isinstance(statement, kind)), "SELECT")
    target = statement.this.find(exp.Table) if verb != "SELECT" else None
    found = set()
    if target is not None:
        found.add((verb, target.name.lower()))
        if statement.args.get("where") or statement.args.get("returning"):
            found.add(("SELECT", target.name.lower()))
    names = {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    found |= {("SELECT", table.name.lower()) for table in statement.find_all(exp.Table) if table is not target}
    return {(each, table) for each, table in found if table in OURS and table not in names}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_needs_exactly_its_grants(account: str) -> None:
    """Each of its statements is granted, and each grant is needed."""
    found = {sql for said, sql in statements() if re.match(ACCOUNTS[account], said)}
    assert len(found) >= 5
    assert {each for sql in found for each in needed(sql)} == granted(account)
    locking = {table for sql in found if re.search(r"FOR\s+UPDATE", sql) for _, table in needed(sql)}
    assert {("UPDATE", table) for table in locking} <= granted(account)


def test_no_function_is_left_out() -> None:
    """Each function that queries the tables belongs to an account: otherwise its grants would go unchecked."""
    known = "|".join(ACCOUNTS.values())
    assert [said for said, sql in statements() if needed(sql) and not re.match(known, said)] == []


def test_an_account_sees_the_revision_of_the_owners_tables(oracle: OracleEmulator, service: Engine) -> None:
    """Without DATABASE_SCHEMA it finds no revision and no tables."""
    assert query(service, "SELECT table_name FROM user_tables") == []
    state = migrations.state(service)
    assert (state.current, state.behind) == (state.head, False)
    lost = connect_to(oracle.url_of(SERVICE))
    assert migrations.state(lost).current is None
    with pytest.raises(DBAPIError) as missing:
        tuple(repository.walk(lost))
    assert "kafka-webhooks migrate" in str(unavailable(missing.value))
    lost.dispose()


def test_another_account_migrates_in_the_owners_schema(oracle: OracleEmulator, service: Engine) -> None:
    """With DATABASE_SCHEMA, the account makes no table of its own."""
    owner = connect_to(oracle.url)
    command.downgrade(migrations._config(owner), "0001")
    migrations.upgrade(service)
    assert not migrations.state(owner).behind
    assert query(service, "SELECT table_name FROM user_tables") == []
    with service.begin() as connection:  # as a migration in docs/alembic.md does for such an account
        named = sa.table("webhook_subscriptions", *map(sa.column, ("url", "event_type")), schema="webhooks")
        connection.execute(named.insert().values(url="https://a.example", event_type="t"))
    assert [row.url for row in repository.walk(owner)] == ["https://a.example"]
    owner.dispose()


def test_no_view_of_the_instance_is_read(oracle: OracleEmulator) -> None:
    """An account has no right to V$ views, and each attempt would be in the audit trail, at each start."""
    engine = connect_to(oracle.url)
    migrations.state(engine)
    assert not [call.sql for call in oracle.calls if re.search(r"(?i)v\$|transaction_id", call.sql)]
    engine.dispose()


@pytest.mark.parametrize(
    ("view", "warns"),
    [
        ("SELECT 'commit_wait' AS NAME, 'nowait' AS \"VALUE\" FROM DUAL", True),
        ("SELECT 'commit_write' AS NAME, 'BATCH,NOWAIT' AS \"VALUE\" FROM DUAL", True),
        ("SELECT 'commit_wait' AS NAME, 'FORCE_WAIT' AS \"VALUE\" FROM DUAL", False),
        ("SELECT 'commit_wait' AS NAME, CAST(NULL AS VARCHAR(9)) AS \"VALUE\" FROM DUAL", False),
        (None, False),
    ],
)
def test_check_warns_of_commits_before_the_disk(oracle: OracleEmulator, view: str | None, *, warns: bool) -> None:
    """An account that may not read the parameter is told nothing, and `check` succeeds either way."""
    database = oracle._instance.database
    database.run(['DROP VIEW SYS."V$PARAMETER"', *([f'CREATE VIEW SYS."V$PARAMETER" AS {view}'] if view else [])])
    found = {each.part: each for each in check.check_all({"DATABASE_URL": oracle.url})}
    assert ("commits" in found) == warns
    if warns:
        commits = found["commits"]
        assert (commits.ok, commits.warning) == (True, True)
        assert "is NOWAIT: the server confirms commits before they are on disk" in commits.text


def test_an_outage_is_not_taken_for_a_missing_right(oracle: OracleEmulator) -> None:
    """The question about commits says what went wrong."""
    engine = connect_to(oracle.url)
    oracle.inject("parameter", OracleError(3113, "end-of-file on communication channel"))
    with pytest.raises(DBAPIError, match="ORA-03113"):
        lossy_commits(engine)
    engine.dispose()
