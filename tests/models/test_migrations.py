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
from models import Base, Subscription
from tests.databases import connect_to, database, differences, on_oracle
from tests.oracle.sqlplus import STOP, statements
from tests.oracle_emulator import OracleEmulator, OracleError
from tests.oracle_emulator.refusals import RESERVED
from tests.processes import PROGRAM, environment

ROOT = Path(__file__).parents[2]
UNREACHABLE = "oracle+oracledb://scott:tiger@127.0.0.1:1/?service_name=X"
ORACLE = "oracle+oracledb://scott:tiger@nowhere.invalid:1521/?service_name=FREEPDB1"
# As articles print it: constraints have no names.
TUTORIAL = """
CREATE TABLE webhook_subscriptions (
    id INTEGER PRIMARY KEY, url VARCHAR(255) NOT NULL, event_type VARCHAR(50) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP{more})
"""
LATER_COLUMNS = sorted(
    {column.name for column in Subscription.__table__.columns} - {"id", "url", "event_type", "created_at"}
)


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


def adopt(path: Path, more: str = "", length: int = 255) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(TUTORIAL.format(more=more).replace("url VARCHAR(255)", f"url VARCHAR({length})"))
        connection.executemany(
            "INSERT INTO webhook_subscriptions (url, event_type) VALUES (?, 'user.created')",
            [(f"https://example.com/{number}",) for number in range(3)],
        )
    connection.close()


def definitions(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    connection.close()
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
    assert migrations.state(empty)[:2] == (None, "0013")
    migrations.upgrade(empty)
    migrations.upgrade(empty)
    assert migrations.state(empty)[:2] == ("0013", "0013")


def test_tables_of_a_later_version_are_accepted(empty: Engine) -> None:
    """They are not behind, and are not migrated. For another program's revision, see test_version_table.py."""
    migrations.upgrade(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_alembic_version SET version_num = '0099'")
    assert migrations.state(empty) == ("0099", "0013", False)
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


def test_rows_survive_the_revision_of_options(empty: Engine, path: Path) -> None:
    """The upgrade sets each option to its default, and secrets sign.

    The downgrade deletes credentials and keeps signing secrets.
    """
    migrations.upgrade(empty, revision="0004")
    with empty.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO webhook_subscriptions (url, event_type, rate_limit) VALUES ('https://a.example', 't', 2)"
        )
        connection.exec_driver_sql("INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, 'own')")
    migrations.upgrade(empty)
    (row,) = repository.walk(empty)
    defaults = {name: option.default for name, option in OPTIONS.items() if not option.required}
    assert row.options == {"url": "https://a.example", "event_type": "t"} | defaults | {"rate_limit": 2}
    assert (row.secrets, row.credentials, row.state) == (1, (), "enabled")
    with empty.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_subscriptions SET event_filter = 'true', tenant = 'acme'")
        connection.exec_driver_sql(
            "INSERT INTO webhook_secrets (subscription_id, secret, kind) VALUES (1, 'x', 'bearer')"
        )
    assert alembic("downgrade", "0004", url=f"sqlite:///{path}").returncode == 0
    with empty.connect() as connection:
        assert connection.exec_driver_sql("SELECT url, event_type, rate_limit FROM webhook_subscriptions").one() == (
            "https://a.example",
            "t",
            2,
        )
        assert connection.exec_driver_sql("SELECT secret FROM webhook_secrets").scalars().all() == ["own"]
    migrations.upgrade(empty)
    assert differences(empty) == []


def test_ids_of_deleted_rows_are_not_used_again(empty: Engine) -> None:
    """SQLite rebuilds tables, and their ids go on after the last one, also if the table is empty."""
    add = {
        "webhook_subscriptions": "(url, event_type) VALUES ('https://a.example', 't')",
        "webhook_replays": "(group_id, subscription_id, since_at, until_at, rate, positions)"
        " VALUES ('g', 2, '2026-01-01', '2026-01-02', 1, '[]')",
    }
    migrations.upgrade(empty, revision="0003")
    with empty.begin() as connection:
        for table, values in add.items():
            for _ in range(2):
                connection.exec_driver_sql(f"INSERT INTO {table} {values}")
        connection.exec_driver_sql("DELETE FROM webhook_subscriptions WHERE id = 2")
        connection.exec_driver_sql("DELETE FROM webhook_replays")
    migrations.upgrade(empty)
    with empty.begin() as connection:
        for table, values in add.items():
            connection.exec_driver_sql(f"INSERT INTO {table} {values}")
            assert connection.scalar(sa.select(sa.func.max(sa.column("id"))).select_from(sa.table(table))) == 3


def test_the_tutorials_table_is_adopted_with_its_rows(empty: Engine, path: Path) -> None:
    """A table of plain DDL, with unnamed constraints, keeps its rows and ids and becomes ours."""
    adopt(path)
    migrations.upgrade(empty)
    assert differences(empty) == []
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
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE INDEX my_index ON webhook_subscriptions (owner_team)")
    connection.close()
    migrations.upgrade(empty)
    inspector = sa.inspect(empty)
    columns = {column["name"]: column["type"] for column in inspector.get_columns("webhook_subscriptions")}
    assert "owner_team" in columns
    assert [getattr(columns[name], "length", None) for name in ("url", "event_type")] == [4000, 255]
    assert "my_index" in {index["name"] for index in inspector.get_indexes("webhook_subscriptions")}
    assert inspector.get_unique_constraints("webhook_subscriptions")[0]["column_names"] == ["url", "event_type"]
    with empty.connect() as ours:
        assert ours.exec_driver_sql("SELECT DISTINCT owner_team FROM webhook_subscriptions").all() == [("core",)]


def test_nullable_columns_become_not_null(path: Path, tmp_path: Path) -> None:
    """They become as in the tutorial's table.

    A row without a url stops the migration with one line, and nothing changes.
    """
    tables = []
    for name, adopted in (("strict.db", TUTORIAL), ("loose.db", TUTORIAL.replace(" NOT NULL", ""))):
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute(adopted.format(more=""))
        connection.close()
        assert migrate(tmp_path / name).returncode == 0
        tables.append(definitions(tmp_path / name))
    assert tables[0] == tables[1]
    with sqlite3.connect(path) as connection:
        connection.execute(TUTORIAL.replace(" NOT NULL", "").format(more=""))
        connection.execute("INSERT INTO webhook_subscriptions (event_type) VALUES ('user.created')")
    connection.close()
    before = definitions(path)
    refused = migrate(path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1].startswith("kafka-webhooks: webhook_subscriptions has 1 row(s) without url")
    assert "Traceback" not in refused.stderr
    assert definitions(path) == before


def migrate(path: Path) -> subprocess.CompletedProcess[str]:
    variables = environment({"DATABASE_URL": f"sqlite:///{path}"})
    command = [*PROGRAM, "migrate"]
    return subprocess.run(
        command, cwd=path.parent, env=variables, capture_output=True, text=True, timeout=200, check=False
    )


def test_columns_in_upper_case_are_renamed_on_sqlite(empty: Engine, path: Path) -> None:
    """SQLite ignores the case of names, and Alembic does not. The rows stay."""
    with sqlite3.connect(path) as connection:
        columns = re.sub(r"\b(id|url|event_type|created_at)\b", lambda found: found[0].upper(), TUTORIAL)
        connection.execute(columns.format(more=""))
        connection.execute("INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://a.example', 't')")
    connection.close()
    migrations.upgrade(empty)
    assert differences(empty) == []
    with empty.connect() as ours:
        assert ours.exec_driver_sql("SELECT url, event_type FROM webhook_subscriptions").all() == [
            ("https://a.example", "t")
        ]


@pytest.mark.parametrize(
    ("was", "becomes", "error"),
    [
        ("webhook_subscriptions", "Webhook_Subscriptions", "not in lower case; rename it, by way of another name"),
        ("id INTEGER", "id BIGINT", "make the table anew with id INTEGER PRIMARY KEY"),
        ("id INTEGER", "id VARCHAR(36)", "make the table anew with id INTEGER PRIMARY KEY"),
        ("PRIMARY KEY", "UNIQUE", "make the table anew with id INTEGER PRIMARY KEY"),
        ("URRENT_TIMESTAMP{more})", "URRENT_TIMESTAMP) WITHOUT ROWID", "not WITHOUT ROWID"),
        ("CREATE TABLE webhook_subscriptions", "CREATE TABLE another", "is a view, and a table is needed"),
    ],
)
def test_a_table_that_sqlite_cannot_rebuild_is_refused(
    empty: Engine, path: Path, was: str, becomes: str, error: str
) -> None:
    """One line says what to change, and nothing is changed yet."""
    assert was in TUTORIAL
    with sqlite3.connect(path) as connection:
        connection.execute(TUTORIAL.replace(was, becomes).format(more=""))
        if "another" in becomes:
            connection.execute("CREATE VIEW webhook_subscriptions AS SELECT * FROM another")
    connection.close()
    before = definitions(path)
    with pytest.raises(WebhooksError, match=error):
        migrations.upgrade(empty)
    assert definitions(path) == before


def test_columns_of_later_revisions_are_refused(empty: Engine, path: Path) -> None:
    """They are refused before any change: on Oracle, earlier revisions would stay applied."""
    adopt(path, "".join(f", {column} INTEGER" for column in LATER_COLUMNS))
    before = definitions(path)
    with pytest.raises(WebhooksError, match=f"names we need; rename: {', '.join(LATER_COLUMNS)}$"):
        migrations.upgrade(empty)
    assert definitions(path) == before


def test_a_failed_migration_changes_nothing(empty: Engine, path: Path) -> None:
    """On SQLite all revisions are one transaction: the adopted table is unchanged, and a later run succeeds."""
    adopt(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE webhook_payloads (id INTEGER)")
    connection.close()
    before = definitions(path)
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        migrations.upgrade(empty)
    assert definitions(path) == before
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE webhook_payloads")
    connection.close()
    migrations.upgrade(empty)
    assert differences(empty) == []


@on_oracle
def test_a_failed_migration_on_oracle_records_whole_revisions(emulator: OracleEmulator) -> None:
    """DDL commits by itself, so the state names the last complete revision and is behind."""
    emulator.add_user("NEW", "secret")
    engine = connect_to(emulator.url_of("NEW"))
    emulator.inject("CREATE TABLE webhook_replays", OracleError(1653, "unable to extend table"))
    with pytest.raises(DatabaseUnavailable, match="ORA-01653"):
        migrations.upgrade(engine)
    assert migrations.state(engine)[::2] == ("0002", True)
    assert {"webhook_operations", "webhook_deliveries"} <= set(sa.inspect(engine).get_table_names())
    engine.dispose()
    emulator.drop_user("NEW")


def test_a_missing_table_of_an_earlier_revision_is_named(empty: Engine) -> None:
    """The advice is to restore it: the migration, run again, would fail again."""
    assert_that_a_missing_table_is_named(empty)


@on_oracle
def test_a_missing_table_is_named_on_oracle(emulator: OracleEmulator) -> None:
    """ORA-00942 names none before 23ai, and is no reason to run the migration again."""
    emulator.add_user("NEW", "secret")
    engine = connect_to(emulator.url_of("NEW"))
    assert_that_a_missing_table_is_named(engine)
    engine.dispose()
    emulator.drop_user("NEW")


def assert_that_a_missing_table_is_named(engine: Engine) -> None:
    migrations.upgrade(engine, revision="0002")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_deliveries")
    with pytest.raises(WebhooksError, match="at revision 0002, but a table or column of it is missing") as caught:
        migrations.upgrade(engine)
    assert "webhook_deliveries" in str(caught.value)
    assert "run kafka-webhooks migrate" not in str(caught.value)


@on_oracle
@pytest.mark.parametrize("column", ["url", "event_type"])
def test_a_downgrade_that_would_cut_a_value_drops_nothing(emulator: OracleEmulator, column: str) -> None:
    """Oracle's DDL commits by itself: after ORA-01441 the stored deliveries would be lost, and neither way be open."""
    emulator.add_user("NEW", "secret")
    engine = connect_to(emulator.url_of("NEW"))
    migrations.upgrade(engine, revision="0002")
    values = {"url": "https://a.example", "event_type": "t"} | {column: "t" * 255 + ("t" if column == "url" else "")}
    with engine.begin() as connection:
        statement = "INSERT INTO webhook_subscriptions (url, event_type) VALUES (:url, :event_type)"
        connection.execute(sa.text(statement), values)
    before = sa.inspect(engine).get_table_names()
    with pytest.raises(WebhooksError, match=f"1 row.s. whose {column} has more than"):
        command.downgrade(migrations._config(engine), "0001")
    assert sa.inspect(engine).get_table_names() == before
    migrations.upgrade(engine)
    assert differences(engine) == []
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


def test_sql_for_another_schema() -> None:
    """With DATABASE_SCHEMA the script first switches to that schema."""
    found = statements(alembic("upgrade", "head", "--sql", url=ORACLE, DATABASE_SCHEMA="HOOKS").stdout)
    assert found[0] == "ALTER SESSION SET CURRENT_SCHEMA = HOOKS"


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
    """No DATE (loses fractions and zone), no BOOLEAN (unknown before 23ai); bytes are BLOB, long text is CLOB."""
    sql = alembic("upgrade", "head", "--sql", url=ORACLE).stdout
    assert not re.search(r"\b(DATE|BOOLEAN|SMALLINT)\b", sql)
    assert "WITH TIME ZONE" not in sql, "COALESCE with a bind would be ORA-00932"
    assert re.findall(r"(\w+) TIMESTAMP DEFAULT CURRENT_TIMESTAMP", sql) == ["created_at"], "the tutorial's own"
    assert "enabled NUMBER(1) DEFAULT 1 NOT NULL" in sql
    assert "body BLOB" in sql
    assert re.findall(r"(\w+) CLOB", sql) == [
        "data",
        "positions",
        "record_headers",
        "certificate",
        "private_key",
        "authorities",
    ]


def test_sql_for_sqlite_makes_the_same_tables(empty: Engine, path: Path, tmp_path: Path) -> None:
    """The printed script, run by the rules of the sqlite3 shell, creates the same tables as the migration."""
    output = io.StringIO()
    migrations.upgrade(empty, sql=True, output=output)
    assert not path.exists()
    by_hand = tmp_path / "by_hand.db"
    connection = sqlite3.connect(by_hand)
    connection.executescript(output.getvalue())
    connection.close()
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
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": ""}  # counts as not set, and overrides a .env file
    result = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode != 0
    assert "DATABASE_URL is not set" in result.stderr


def test_printed_sql_keeps_rows_that_refer_to_a_rebuilt_table(tmp_path: Path) -> None:
    """Where foreign keys are enforced, dropping the table for its copy must not delete its secrets."""
    path = tmp_path / "printed.db"
    engine = connect_to(f"sqlite:///{path}")
    migrations.upgrade(engine, revision="0004")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://a/', 'b')"))
        connection.execute(sa.text("INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, 'mine')"))
    output = io.StringIO()
    migrations.upgrade(engine, revision="0004:0005", sql=True, output=output)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(output.getvalue())
        assert connection.execute("SELECT secret, kind FROM webhook_secrets").fetchall() == [("mine", "signing")]
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
