"""Migrations: from nothing, from the tutorial's table, down again, and as SQL for a DBA."""

import io
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from consumer.database.engine import create_file
from consumer.errors import DatabaseUnavailable, WebhooksError
from consumer.subscriptions import repository
from consumer.subscriptions.options import OPTIONS
from models import Base
from tests.databases import connect_to, database, differences, on_oracle
from tests.oracle.sqlplus import STOP, statements
from tests.oracle_emulator import OracleEmulator
from tests.oracle_emulator.refusals import RESERVED

ROOT = Path(__file__).parents[2]
UNREACHABLE = "oracle+oracledb://scott:tiger@127.0.0.1:1/?service_name=X"
ORACLE = "oracle+oracledb://scott:tiger@nowhere.invalid:1521/?service_name=FREEPDB1"
# As articles print it: constraints have no names.
TUTORIAL = """
CREATE TABLE webhook_subscriptions (
    id INTEGER PRIMARY KEY, url VARCHAR(255) NOT NULL, event_type VARCHAR(50) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP{more})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.db"


@pytest.fixture
def empty(path: Path) -> Iterator[Engine]:
    engine = database(path)
    yield engine
    engine.dispose()


def alembic(*arguments: str, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs alembic as users do, in the project's root with only DATABASE_URL set."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def there(path: Path, *statements: str) -> None:
    """Runs plain SQL, as another program does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(";\n".join(statements))


def adopt(path: Path, more: str = "", length: int = 255) -> None:
    rows = ", ".join(f"('https://example.com/{number}', 'user.created')" for number in range(3))
    table = TUTORIAL.format(more=more).replace("url VARCHAR(255)", f"url VARCHAR({length})")
    there(path, table, f"INSERT INTO webhook_subscriptions (url, event_type) VALUES {rows}")  # noqa: S608 (from above)


def definitions(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return [(name, canonical(sql)) for name, sql in rows]


def canonical(sql: str) -> str:
    """Removes differences of a rebuilt table: white space, parentheses of a default, order of constraints."""
    text = re.sub(r"[\s\"]+", " ", sql).replace("(CURRENT_TIMESTAMP)", "CURRENT_TIMESTAMP")
    columns, *constraints = text.removesuffix(" )").split(", CONSTRAINT ")
    return "\n".join([columns, *sorted(constraints)])


def test_migrations_make_the_models(engine: Engine) -> None:
    """Migrations create the tables that the models describe, on each database."""
    assert not migrations.state(engine).behind
    assert differences(engine) == []


def test_state_names_the_current_and_the_needed_revision(empty: Engine) -> None:
    """Before the migration there is no revision, after it the newest; a second run changes nothing."""
    create_file(empty)
    assert migrations.state(empty)[:2] == (None, "0002")
    migrations.upgrade(empty)
    migrations.upgrade(empty)
    assert migrations.state(empty)[:2] == ("0002", "0002")


def test_tables_of_a_later_version_are_accepted(empty: Engine) -> None:
    """They are not behind, and are not migrated. For another program's revision, see test_version_table.py."""
    migrations.upgrade(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_alembic_version SET version_num = '0099'")
    assert migrations.state(empty) == ("0099", "0002", False)
    migrations.upgrade(empty)
    assert migrations.state(empty)[0] == "0099"


def test_down_and_up_again(empty: Engine, path: Path) -> None:
    """A downgrade keeps the rows of the tutorial's table and removes all else; an upgrade creates it again."""
    migrations.upgrade(empty)
    before = definitions(path)
    with empty.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://a.example', 't')"
        )
    assert alembic("downgrade", "0001", url=f"sqlite:///{path}").returncode == 0
    left = [name for name, _ in definitions(path) if name.startswith(("webhook", "ix_"))]
    assert left == ["webhook_alembic_version", "webhook_subscriptions"]
    with empty.connect() as connection:
        columns = [column["name"] for column in sa.inspect(connection).get_columns("webhook_subscriptions")]
        rows = connection.exec_driver_sql("SELECT id, url, event_type FROM webhook_subscriptions").all()
    assert columns == ["id", "url", "event_type", "created_at"]
    assert rows == [(1, "https://a.example", "t")]
    assert alembic("upgrade", "head", url=f"sqlite:///{path}").returncode == 0
    assert definitions(path) == before
    assert alembic("downgrade", "base", url=f"sqlite:///{path}").returncode == 0
    assert [name for name, _ in definitions(path)] == ["sqlite_sequence", "webhook_alembic_version"]


def test_the_tutorials_table_is_adopted_with_its_rows(empty: Engine, path: Path) -> None:
    """A table of plain DDL, with unnamed constraints, keeps its rows and ids and becomes ours."""
    adopt(path)
    migrations.upgrade(empty)
    assert differences(empty) == []
    (row, *_) = repository.walk(empty)
    defaults = {name: option.default for name, option in OPTIONS.items() if not option.required}
    assert row.options == {"url": "https://example.com/0", "event_type": "user.created"} | defaults
    with empty.begin() as connection:
        connection.exec_driver_sql("DELETE FROM webhook_subscriptions WHERE id = 3")
        connection.exec_driver_sql(
            "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://b.example', 't')"
        )
        rows = connection.exec_driver_sql("SELECT id, url, enabled, created_at FROM webhook_subscriptions").all()
    assert [(row.id, row.url, row.enabled) for row in rows] == [
        (1, "https://example.com/0", 1),
        (2, "https://example.com/1", 1),
        (4, "https://b.example", 1),  # not 3 again: rows stored for the removed one do not become its own
    ]
    assert all(row.created_at for row in rows)


def test_additions_to_the_tutorials_table_stay(empty: Engine, path: Path) -> None:
    """Further columns, an index and a unique constraint survive the migration, and a longer column is not shortened."""
    adopt(path, ", owner_team VARCHAR(20) DEFAULT 'core', UNIQUE (url, event_type)", length=4000)
    there(path, "CREATE INDEX my_index ON webhook_subscriptions (owner_team)")
    migrations.upgrade(empty)
    inspector = sa.inspect(empty)
    columns = {column["name"]: column["type"] for column in inspector.get_columns("webhook_subscriptions")}
    assert "owner_team" in columns
    assert [getattr(columns[name], "length", None) for name in ("url", "event_type")] == [4000, 255]
    assert "my_index" in {index["name"] for index in inspector.get_indexes("webhook_subscriptions")}
    assert inspector.get_unique_constraints("webhook_subscriptions")[0]["column_names"] == ["url", "event_type"]
    with empty.connect() as ours:
        assert ours.exec_driver_sql("SELECT DISTINCT owner_team FROM webhook_subscriptions").all() == [("core",)]


def test_nullable_columns_become_not_null(empty: Engine, path: Path) -> None:
    """A row without a url stops the migration, and nothing changes; without one, the columns become NOT NULL."""
    insert = "INSERT INTO webhook_subscriptions (event_type) VALUES ('user.created')"
    there(path, TUTORIAL.replace(" NOT NULL", "").format(more=""), insert)
    before = definitions(path)
    with pytest.raises(WebhooksError, match=r"NOT NULL constraint failed: \S*webhook_subscriptions.url"):
        migrations.upgrade(empty)
    assert definitions(path) == before
    with empty.begin() as ours:
        ours.exec_driver_sql("DELETE FROM webhook_subscriptions")
    migrations.upgrade(empty)
    assert differences(empty) == []


@pytest.mark.parametrize(
    ("was", "becomes", "error"),
    [
        ("id INTEGER", "id BIGINT", "its primary key is not id alone, INTEGER"),
        ("id INTEGER", "id VARCHAR(36)", "its primary key is not id alone, INTEGER"),
        ("PRIMARY KEY", "UNIQUE", "its primary key is not id alone, INTEGER"),
        ("url VARCHAR", "address VARCHAR", "lacks these columns: url"),
        ("CREATE TABLE webhook_subscriptions", "CREATE TABLE another", "is a view"),
        ("{more}", ", enabled INTEGER", "has columns whose names the service needs: enabled"),
    ],
)
def test_an_unsuitable_table_is_refused(empty: Engine, path: Path, was: str, becomes: str, error: str) -> None:
    """One line says what is wrong, and nothing is changed."""
    assert was in TUTORIAL
    view = "CREATE VIEW webhook_subscriptions AS SELECT * FROM another"
    there(path, TUTORIAL.replace(was, becomes).format(more=""), view if "another" in becomes else "")
    before = definitions(path)
    with pytest.raises(WebhooksError, match=error):
        migrations.upgrade(empty)
    assert definitions(path) == before


def test_a_failed_migration_changes_nothing(empty: Engine, path: Path) -> None:
    """On SQLite all revisions are one transaction: the adopted table is unchanged, and a later run succeeds."""
    adopt(path)
    there(path, "CREATE TABLE webhook_payloads (id INTEGER)")
    before = definitions(path)
    with pytest.raises(WebhooksError, match="already exists"):
        migrations.upgrade(empty)
    assert definitions(path) == before
    there(path, "DROP TABLE webhook_payloads")
    migrations.upgrade(empty)
    assert differences(empty) == []


@on_oracle
@pytest.mark.parametrize("column", ["url", "event_type"])
def test_a_downgrade_that_would_cut_a_value_drops_nothing(emulator: OracleEmulator, column: str) -> None:
    """Oracle's DDL commits by itself: after a refusal (ORA-01441) the stored deliveries would be lost."""
    emulator.add_user("NEW", "secret")
    engine = connect_to(emulator.url_of("NEW"))
    migrations.upgrade(engine)
    values = {"url": "https://a.example", "event_type": "t"} | {column: "t" * 255 + ("t" if column == "url" else "")}
    with engine.begin() as connection:
        statement = "INSERT INTO webhook_subscriptions (url, event_type) VALUES (:url, :event_type)"
        connection.execute(sa.text(statement), values)
    before = sa.inspect(engine).get_table_names()
    with pytest.raises(sa.exc.DBAPIError, match=r"ORA-01441|ORA-12899"):
        command.downgrade(migrations._config(engine), "0001")
    assert sa.inspect(engine).get_table_names() == before
    engine.dispose()
    emulator.drop_user("NEW")


def test_two_processes_migrate_at_once(path: Path) -> None:
    """Both succeed: the second waits for the first and finds nothing to do."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{path}"}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("0001 -> 0002" in output for output in outputs) == 1


@pytest.mark.parametrize("arguments", [("upgrade", "head"), ("upgrade", "0001:head"), ("downgrade", "head:base")])
def test_sql_for_oracle_needs_no_connection(arguments: tuple[str, str]) -> None:
    """With the URL of an unreachable host, the script stops at the first error and ends with a commit.

    SQL*Plus runs it unchanged: no line has a substitution variable, or would be cut, ended early, continued or run as a
    command.
    """
    result = alembic(*arguments, "--sql", url=ORACLE)
    assert result.returncode == 0, result.stderr
    assert "tiger" not in result.stdout + result.stderr
    assert result.stdout.startswith(f"{STOP}\n")
    found = statements(result.stdout)
    assert found[-1] == "COMMIT"
    for statement in found:
        assert not re.search(r";|RETURNING|&|\n\n", statement)  # SQLBLANKLINES is off
        for line in statement.splitlines():
            assert len(line) < 2500, line
            assert line.isascii(), line
            assert not line.rstrip().endswith("-"), line
            assert not line.startswith(("#", "@", ".")), line
    starts_anew = arguments == ("upgrade", "head")
    assert ("CREATE TABLE webhook_subscriptions" in result.stdout) == starts_anew


def test_names_fit_every_oracle() -> None:
    """Names of tables, columns, constraints and indexes have at most 30 characters.

    None is missing or a reserved word.
    """
    for table in Base.metadata.tables.values():
        named = [table, *table.columns, *table.constraints, *table.indexes]
        for item in named:
            name = str(item.name)
            assert item.name, (table.name, item)
            assert len(name) <= 30, name
            assert name.upper() not in RESERVED, name


def test_oracle_types_keep_values() -> None:
    """No DATE (loses fractions and zone), no BOOLEAN (unknown before 23ai); bytes are BLOB.

    With DATABASE_SCHEMA the script first switches to that schema.
    """
    sql = alembic("upgrade", "head", "--sql", url=ORACLE, DATABASE_SCHEMA="HOOKS").stdout
    assert statements(sql)[0] == "ALTER SESSION SET CURRENT_SCHEMA = HOOKS"
    assert not re.search(r"\b(DATE|BOOLEAN|SMALLINT)\b", sql)
    assert "WITH TIME ZONE" not in sql, "COALESCE with a bind would be ORA-00932"
    assert re.findall(r"(\w+) TIMESTAMP DEFAULT CURRENT_TIMESTAMP", sql) == ["created_at"], "the tutorial's own"
    assert "id NUMBER(19) GENERATED BY DEFAULT AS IDENTITY" in sql
    assert "enabled NUMBER(1) DEFAULT 1 NOT NULL" in sql
    assert "url VARCHAR2(2048 CHAR) NOT NULL" in sql
    assert "body BLOB" in sql


def test_sql_for_sqlite_makes_the_same_tables(empty: Engine, path: Path, tmp_path: Path) -> None:
    """The printed script, run by the rules of the sqlite3 shell, creates the same tables as the migration."""
    output = io.StringIO()
    migrations.upgrade(empty, sql=True, output=output)
    assert not path.exists()
    by_hand = tmp_path / "by_hand.db"
    there(by_hand, output.getvalue())
    migrations.upgrade(empty)
    assert definitions(by_hand) == definitions(path)


def test_an_unreachable_database_is_one_error() -> None:
    """`state` and `upgrade` raise one error of ours in one line, without the driver's traceback."""
    engine = connect_to(UNREACHABLE)
    for question in (migrations.state, migrations.upgrade):
        with pytest.raises(DatabaseUnavailable) as caught:
            question(engine)
        assert "tiger" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_env_refuses_a_missing_url() -> None:
    """Without DATABASE_URL, alembic fails and names the setting."""
    result = alembic("upgrade", "head", url="")  # counts as not set, and overrides a .env file
    assert result.returncode != 0
    assert "DATABASE_URL is not set" in result.stderr
