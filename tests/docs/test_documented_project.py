"""docs/alembic.md: its project, file by file and command by command, beside the service's tables."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from consumer.database import migrations
from consumer.subscriptions import repository
from models import Base
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture: what speaks SQL)
from tests.databases import url_of
from tests.docs.documentation import TEXTS
from tests.ledger.rows_kit import query
from tests.processes import ROOT, environment

PAGE = TEXTS["docs/alembic.md"]
FILES = dict(re.findall(r"^<!-- example: (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PLACES = {"alembic.ini": ".", "shop.py": ".", "env.py": "migrations"}
Alembic = Callable[..., str]


def alembic(*words: str, cwd: Path, url: str) -> str:
    """The output of the command, which must succeed."""
    variables = environment({"DATABASE_URL": url, "PYTHONPATH": ""})
    command = [sys.executable, "-m", "alembic", *words]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, engine: Engine) -> Alembic:
    """The project, built as the page describes; runs Alembic in it."""

    def run(*words: str) -> str:
        return alembic(*words, cwd=tmp_path, url=url_of(engine))

    run("init", "migrations")
    for name, text in FILES.items():
        if not name.endswith(".sh"):
            (tmp_path / PLACES.get(name, "migrations/versions") / name).write_text(text)
    return run


def filters(engine: Engine) -> list[tuple[object, ...]]:
    """The filter of each subscription."""
    return [
        (row.options["event_type"], row.tenant, row.options["event_filter"], row.broken)
        for row in repository.walk(engine)
    ]


def test_the_project_runs_beside_the_service(project: Alembic, engine: Engine, tmp_path: Path) -> None:
    """Its commands work one by one. Its downgrade removes its rows, and neither side loses a table or a revision."""
    ours = {*Base.metadata.tables, "webhook_alembic_version"}
    repository.add(engine, "https://other.example.com/", "user.created")
    other = [("user.created", "*", None, False)]
    paid = ("order.paid", "*", None, False)
    said = [project(*shlex.split(line)[1:]) for line in FILES["commands.sh"].splitlines()]
    made = (tmp_path / "migrations/versions/0003_orders.py").read_text()
    assert re.findall(r"op\.(\w+)\('(\w+)'", made) == [("create_table", "shop_orders"), ("drop_table", "shop_orders")]
    assert "No new upgrade operations detected" in said[3]
    assert filters(engine) == [*other, paid, ("order.**", "acme", "data.amount > 1000", False)]
    needs = [[problem.option for problem in row.problems] for row in repository.walk(engine)]
    assert needs == [[], [], ["secret"]]  # which the page says
    assert query(engine, "SELECT version_num FROM alembic_version") == [("0003",)]
    tables = set(sa.inspect(engine).get_table_names())
    assert {name for name in tables if not name.startswith("sqlite_")} == {*ours, "alembic_version", "shop_orders"}
    migrations.upgrade(engine)
    assert query(engine, "SELECT version_num FROM alembic_version") == [("0003",)]
    checked = alembic("check", cwd=ROOT, url=url_of(engine))
    assert (
        "No new upgrade operations detected" in checked
    )  # the service's own autogenerate ignores the project's tables
    project("downgrade", "0001")
    assert filters(engine)[1:] == [paid, ("order.**", "acme", "data.amount > 100", False)]
    project("downgrade", "base")
    assert filters(engine) == other
    assert not migrations.state(engine).behind


def test_a_project_that_has_a_model_of_our_table(project: Alembic, tmp_path: Path) -> None:
    """As in the tutorial, it neither creates the table nor changes it."""
    with (tmp_path / "shop.py").open("a") as file:
        file.write('Table("webhook_subscriptions", metadata, Column("id", Integer, primary_key=True))\n')
    project(*shlex.split("upgrade head"))
    project(*shlex.split("revision --autogenerate -m orders --rev-id 0003"))
    made = (tmp_path / "migrations/versions/0003_orders.py").read_text()
    assert "shop_orders" in made
    assert "webhook_" not in made


def test_the_printed_script(project: Alembic, engine: Engine) -> None:
    """A script for a DBA has literals and no bind."""
    script = project("upgrade", "head", "--sql")
    assert '\'{"X-Origin": "shop"}\'' in script
    assert "CREATE TABLE alembic_version" in script
    assert not re.search(r":\w+[,)]", script)
    assert filters(engine) == []
