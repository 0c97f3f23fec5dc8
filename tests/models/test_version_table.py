"""Where the tables' revision is noted: a table of ours, apart from that of any other program in the same schema."""

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
HEAD = "0011"


def run(engine: Engine, *statements: str) -> None:
    """Each is a transaction, as Oracle's DDL is."""
    for statement in statements:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)


def insert(table: str, revision: str) -> str:
    return f"INSERT INTO {table} (version_num) VALUES ('{revision}')"  # noqa: S608 (both are written here)


def as_before(engine: Engine, *revisions: str) -> None:
    """As a release up to 0007 left it, or another program: what is noted stands in Alembic's default table."""
    if migrations.state(engine).current == HEAD:
        down(engine, "0008")  # which has changed no table
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
    """What stands in our table, and in Alembic's default one."""
    ours, other = (
        [name for (name,) in query(engine, f"SELECT {table}.version_num FROM {table} ORDER BY 1")]  # noqa: S608 (ours)
        for table in ("webhook_alembic_version", "alembic_version")
    )
    return ours, other


@pytest.mark.parametrize("others", [(), (THEIRS,)], ids=["ours alone", "shared"])
def test_the_revision_moves(engine: Engine, others: tuple[str, ...]) -> None:
    """Out of Alembic's default table into ours; what another program has noted there stays."""
    as_before(engine, "0007", *others)
    assert migrations.state(engine) == ("0007", HEAD, True)
    migrations.upgrade(engine)
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [*others])
    assert not migrations.state(engine).behind


@pytest.mark.parametrize("theirs", [THEIRS, "0001", "0003"])
def test_another_programs_revision_stays(engine: Engine, theirs: str) -> None:
    """Whatever it is called, where the tables that we would have made are not there."""
    down(engine, "base")
    as_before(engine, theirs)
    assert migrations.state(engine).current is None
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [theirs])


@pytest.mark.parametrize("others", [(), (THEIRS,)], ids=["ours alone", "shared"])
def test_the_printed_script_moves_it(engine: Engine, others: tuple[str, ...]) -> None:
    """From a revision of a release before; from the first of ours on it has nothing to move."""
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


def test_two_move_it_at_once(engine: Engine) -> None:
    """One does; the other finds that it is done."""
    as_before(engine, "0007", THEIRS)
    variables = environment({"DATABASE_URL": url_of(engine)})
    both = [
        subprocess.Popen([*PROGRAM, "migrate"], cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert noted(engine) == ([HEAD], [THEIRS])


def test_the_release_before_can_be_gone_back_to(engine: Engine) -> None:
    """With its revision in Alembic's default table, as the documentation says; both tables may be there at once."""
    as_before(engine, "0007")
    migrations.upgrade(engine)
    run(engine, insert("alembic_version", "0007"))
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], ["0007"])
    down(engine, "0008")
    run(engine, "DELETE FROM webhook_alembic_version")
    migrations.upgrade(engine)
    assert noted(engine) == ([HEAD], [])


def test_looking_changes_nothing(engine: Engine) -> None:
    """`alembic current` moves nothing."""
    as_before(engine, "0007")
    command.current(migrations._config(engine))
    assert query(engine, "SELECT version_num FROM alembic_version") == [("0007",)]
    assert "webhook_alembic_version" not in sa.inspect(engine).get_table_names()


def test_a_revision_put_behind_ours_is_met_with_what_to_do(engine: Engine) -> None:
    """Another program's, in one line with ours: its name has taken the place of ours, so that nobody knows which."""
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
    """As one line behind our revisions, or as a second head: a line says what belongs there."""
    rows = (THEIRS, *also)
    run(
        engine,
        "DELETE FROM webhook_alembic_version",
        *(insert("webhook_alembic_version", row) for row in rows),
    )
    with pytest.raises(WebhooksError, match=f"webhook_alembic_version holds .*{THEIRS}"):
        migrations.upgrade(engine)
    assert migrations.state(engine).behind
