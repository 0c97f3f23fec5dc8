"""Accounts that own nothing: with the documented grants they can do all of their work, and no more."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import sqlglot
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlglot import exp

from consumer import ledger, matching
from consumer.database import migrations
from consumer.database.engine import unavailable
from consumer.subscriptions import repository
from models import Base
from tests.databases import connect_to
from tests.ledger.rows_kit import query
from tests.models.test_version_table import as_before, noted
from tests.oracle import accounts
from tests.oracle.accounts import ACCOUNTS, granted
from tests.oracle_emulator import Call, OracleEmulator, OracleError

SERVICE = "WEBHOOKS_SERVICE"
OURS = {*Base.metadata.tables, "webhook_alembic_version"}


@pytest.fixture
def service(oracle: OracleEmulator) -> Iterator[Engine]:
    """The engine of an account that owns nothing, on the tables of another."""
    owner = connect_to(oracle.url)
    migrations.upgrade(owner)
    oracle.add_user(SERVICE, "secret")
    engine = connect_to(oracle.url_of(SERVICE), str(owner.url.username).upper())
    yield engine
    engine.dispose()
    owner.dispose()


def needed(sql: str) -> set[tuple[str, str]]:
    """The privileges that a statement needs, on which tables of ours.

    With SQL92_SECURITY, true from 12.2 on, whoever names columns of what is changed must be allowed to read them.
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
def test_an_account_that_owns_nothing_needs_what_it_is_granted(
    oracle: OracleEmulator, service: Engine, account: str
) -> None:
    """All that it does, through the driver: no statement that is not granted, no grant without a statement."""
    ACCOUNTS[account](service, oracle.forget)
    calls = [call for call in oracle.calls if call.user == SERVICE]
    statements = {call.sql for call in calls if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", call.sql)}
    assert len(statements) >= 5
    assert {each for sql in statements for each in needed(sql)} == granted(account)
    others = {call.sql for call in calls} - statements
    session = r"(?i)ALTER SESSION SET (TIME_ZONE|CURRENT_SCHEMA)|select sys_context|begin|COMMIT"
    assert all(re.match(session, sql) for sql in others), others
    locking = {table for sql in statements if re.search(r"FOR\s+UPDATE", sql) for _, table in needed(sql)}
    assert {("UPDATE", table) for table in locking} <= granted(account)


def test_no_function_is_left_out() -> None:
    """Each that asks the database is done by one of the accounts, or by what they do: else its grants are not seen."""
    done = Path(accounts.__file__).read_text()
    by_another = {"in_transaction", "by_id"}
    modules = [
        importlib.import_module(f"{room.__name__}.{module.name}")
        for room in (ledger, matching)
        for module in pkgutil.iter_modules(room.__path__)
    ]
    asking = {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and next(iter(inspect.signature(function).parameters), "") == "engine"
    }
    assert len(asking) > 30
    public = {name for name in asking if not name.startswith("_")}
    assert {name for name in public - by_another if not re.search(rf"\b{name}\(", done)} == set()


def test_an_account_that_owns_nothing_sees_how_far_the_tables_are(oracle: OracleEmulator, service: Engine) -> None:
    """The migration's state is that of the owner's tables, though the account has none; without its schema, none is."""
    assert query(service, "SELECT table_name FROM user_tables") == []
    state = migrations.state(service)
    assert (state.current, state.behind) == (state.head, False)
    lost = connect_to(oracle.url_of(SERVICE))
    assert migrations.state(lost).current is None
    with pytest.raises(DBAPIError) as missing:
        tuple(repository.walk(lost))
    assert "kafka-webhooks migrate" in str(unavailable(missing.value))
    lost.dispose()


def test_another_account_moves_the_revision_where_the_tables_are(oracle: OracleEmulator, service: Engine) -> None:
    """With DATABASE_SCHEMA: what a release before 0008 has noted there, and not beside the account."""
    owner = connect_to(oracle.url)
    as_before(owner, "0007")
    migrations.upgrade(service)
    assert noted(owner) == ([migrations.state(service).head], [])
    assert query(service, "SELECT table_name FROM user_tables") == []
    with service.begin() as connection:  # as docs/alembic.md has a migration of such an account do
        named = sa.table("webhook_subscriptions", *map(sa.column, ("url", "event_type")), schema="webhooks")
        connection.execute(named.insert().values(url="https://a.example", event_type="t"))
    assert [row.url for row in repository.walk(owner)] == ["https://a.example"]
    owner.dispose()


def test_an_account_needs_no_view_of_the_instance(oracle: OracleEmulator, service: Engine) -> None:
    """SQLAlchemy asks V$PARAMETER at its first connection, which such an account may not see: it goes on."""
    refused: list[str] = []

    def asks(call: Call) -> bool:
        if "v$" in call.sql.lower():
            refused.append(call.sql)
        return "v$" in call.sql.lower()

    oracle.inject(asks, OracleError(942, "table or view does not exist"), times=100)
    assert not migrations.state(service).behind
    assert repository.add(service, "https://a.example", "t") == 1
    assert refused
