"""Our revision is stored in a table of ours, apart from those of other programs in the same schema."""

import io
import subprocess

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from consumer.errors import WebhooksError
from tests.databases import url_of
from tests.ledger.rows_kit import query
from tests.oracle import sqlplus
from tests.processes import PROGRAM, ROOT, environment

THEIRS = "5d1e7c0a9b42"
HEAD = "0013"


def run(engine: Engine, *statements: str) -> None:
    """Runs each statement in a transaction of its own, like DDL on Oracle."""
    for statement in statements:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)


def insert(table: str, revision: str) -> str:
    return f"INSERT INTO {table} (version_num) VALUES ('{revision}')"  # noqa: S608 (both are written here)


def as_before(engine: Engine, *revisions: str) -> None:
    """Sets Alembic's default table as another program, or a release up to 0007, left it."""
    if migrations.state(engine).current == HEAD:
        down(engine, "0008")  # 0008 changed no table
    run(
        engine,
        "DROP TABLE webhook_alembic_version",
        "CREATE TABLE alembic_version"
        " (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        *(insert("alembic_version", revision) for revision in revisions),
    )


def down(engine: Engine, revision: str) -> None:
    command.downgrade(migrations._config(engine), revision)


def noted(engine: Engine) -> tuple[list[str], list[str]]:
    """The revisions in our table, and those in Alembic's default table."""
    ours, other = (
        [name for (name,) in query(engine, f"SELECT {table}.version_num FROM {table} ORDER BY 1")]  # noqa: S608 (ours)
        for table in ("webhook_alembic_version", "alembic_version")
    )
    return ours, other


@pytest.mark.parametrize("others", [(), (THEIRS,)], ids=["ours alone", "shared"])
def test_the_revision_moves(engine: Engine, others: tuple[str, ...]) -> None:
    """It moves from Alembic's default table to ours; another program's revision stays there."""
    as_before(engine, "0007", *others)
    assert migrations.state(engine) == ("0007", HEAD, True)
    migrations.upgrade(engine)
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [*others])
    assert not migrations.state(engine).behind


@pytest.mark.parametrize("theirs", [THEIRS, "0001", "0003"])
def test_another_programs_revision_stays(engine: Engine, theirs: str) -> None:
    """A revision in the default table is another program's, whatever its name, if our tables do not exist."""
    down(engine, "base")
    as_before(engine, theirs)
    assert migrations.state(engine).current is None
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [theirs])


@pytest.mark.parametrize("others", [(), (THEIRS,)], ids=["ours alone", "shared"])
def test_the_printed_script_moves_it(engine: Engine, others: tuple[str, ...]) -> None:
    """The script moves the revision of an earlier release; from our current one there is nothing to move."""
    down(engine, "0002")
    as_before(engine, "0002", *others)
    output = io.StringIO()
    migrations.upgrade(engine, revision="0002:head", sql=True, output=output)
    if engine.dialect.name == "oracle":
        run(engine, *sqlplus.statements(output.getvalue()))
    else:
        with engine.connect() as connection:
            connection.connection.cursor().executescript(output.getvalue())
    assert noted(engine) == ([HEAD], [*others])
    output = io.StringIO()
    migrations.upgrade(engine, revision=f"{HEAD}:head", sql=True, output=output)
    assert "alembic_version" not in output.getvalue()


def test_two_processes_move_it_at_once(engine: Engine) -> None:
    """One moves it, and the other finds it moved."""
    as_before(engine, "0007", THEIRS)
    variables = environment({"DATABASE_URL": url_of(engine)})
    both = [
        subprocess.Popen([*PROGRAM, "migrate"], cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert noted(engine) == ([HEAD], [THEIRS])


def test_an_earlier_release_can_be_run_again(engine: Engine) -> None:
    """Its revision is in Alembic's default table, as the documentation describes; both tables may exist at once."""
    as_before(engine, "0007")
    migrations.upgrade(engine)
    run(engine, insert("alembic_version", "0007"))
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], ["0007"])
    down(engine, "0008")
    run(engine, "DELETE FROM webhook_alembic_version")
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [])


def test_current_changes_nothing(engine: Engine) -> None:
    """`alembic current` moves no revision."""
    as_before(engine, "0007")
    command.current(migrations._config(engine))
    assert query(engine, "SELECT version_num FROM alembic_version") == [("0007",)]
    assert "webhook_alembic_version" not in sa.inspect(engine).get_table_names()


def test_a_revision_overwritten_by_another_program_is_an_error(engine: Engine) -> None:
    """Another program's revision has replaced ours, so nobody knows it. The error says how to restore it."""
    as_before(engine, THEIRS)
    assert migrations.state(engine) == (None, HEAD, True)
    with pytest.raises(
        WebhooksError, match=f"alembic_version holds {THEIRS}.*insert that one into alembic_version too"
    ):
        migrations.upgrade(engine)
    run(engine, insert("alembic_version", "0007"))
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [THEIRS])


@pytest.mark.parametrize("also", [(), (HEAD,)], ids=["behind ours", "beside ours"])
def test_another_programs_revision_in_our_table_is_refused(engine: Engine, also: tuple[str, ...]) -> None:
    """It is refused instead of our revision or beside it, and the error names it."""
    rows = (THEIRS, *also)
    run(
        engine,
        "DELETE FROM webhook_alembic_version",
        *(insert("webhook_alembic_version", row) for row in rows),
    )
    with pytest.raises(WebhooksError, match=f"webhook_alembic_version holds .*{THEIRS}"):
        migrations.upgrade(engine)
    assert migrations.state(engine).behind
