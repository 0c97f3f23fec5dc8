"""The documentation against the code: tables, links, commands, settings, SQL."""

import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
import sqlglot
import typer.main
import yaml
from sqlalchemy import Engine, event, insert, text
from sqlglot import exp

from consumer import schema, settings
from consumer.cli.app import app
from consumer.delivery import ledger
from consumer.errors import SettingsError
from consumer.event import Event, RecordId
from consumer.intake.client import known_properties
from consumer.matching import subscriptions
from consumer.matching.catalog import find_endpoints
from consumer.telemetry import Metrics, registry
from models import Base, Payload, Status
from tests.databases import database
from tests.processes import environment

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "consumer").rglob("*.py")))
NOW = datetime.now(UTC)


class Block(NamedTuple):
    """A fenced block: the page it is on, what follows the fence, and what it holds."""

    page: str
    info: str
    text: str


BLOCKS = [
    Block(page, info, body)
    for page, content in TEXTS.items()
    for info, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)
]


def prose(content: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", content, flags=re.MULTILINE | re.DOTALL)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", TEXTS[page], flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, heading
    return [cells(line) for line in lines[0].splitlines()[2:]]


def table_behind(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    return [cells(line) for line in TEXTS[page].split(head)[1].split("\n\n")[0].splitlines()[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Tables.


def test_settings_table() -> None:
    """README's table is what the settings say of themselves."""
    table = TEXTS["README.md"].split("python -m consumer.settings` -->\n")[1].split("\n<!-- end")[0]
    assert table == settings.table()


def test_metrics_table() -> None:
    """Each metric is documented with its labels and type, and no other."""
    families = list(registry(Metrics(), lambda: {("t", 0): 1}).collect())
    names = {f"{family.name}_total" if family.type == "counter" else family.name: family.type for family in families}
    documented = {code(name)[0].partition("{")[0]: kind for name, kind, _ in rows("docs/operations.md", "Metrics")}
    assert documented == names


def test_reasons_table() -> None:
    """What /readyz is said to answer is in the code, word for word."""
    reasons = [words for reason, *_ in table_behind("docs/operations.md", "| reason |") for words in code(reason)]
    assert len(reasons) > 5
    assert [words for words in reasons if words not in SOURCE] == []


def test_dead_letter_headers_and_reasons() -> None:
    """Each header and each reason of a dead letter is documented, and no other."""
    table = {name: says for names, says in rows("docs/operations.md", "Dead letters") for name in code(names)}
    letters = (ROOT / "consumer/intake/dead_letters.py").read_text()
    assert set(table) == set(re.findall(r'\("(dead-letter-[a-z0-9]+)"', letters))
    decoding = (ROOT / "consumer/intake/decode.py").read_text()
    assert set(code(table["dead-letter-reason"])) == set(re.findall(r'Undecodable\(\s*"(\w+)"', decoding))


@pytest.mark.parametrize("table", sorted(Base.metadata.tables))
def test_columns(table: str) -> None:
    """Each column of each table is documented, in its order, and no other."""
    documented = [name for names, *_ in rows("docs/database.md", table) for name in code(names)]
    assert sorted(documented) == sorted(column.name for column in Base.metadata.tables[table].columns)


def test_statuses() -> None:
    """Each state of a stored delivery is documented, and no other."""
    documented = [code(row[0])[0] for row in table_behind("docs/database.md", "| status |")]
    assert set(documented) == {status.value for status in Status}


# Links, names, commands.


def anchors(content: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_resolve(page: str) -> None:
    """Each relative link leads to a file, and to a heading in it where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_pages_are_linked() -> None:
    """Each page of docs/ is linked from the README."""
    assert all(page in TEXTS["README.md"] for page in TEXTS if page.startswith("docs/"))


def test_picture_is_well_formed() -> None:
    """The picture is XML, says in words what it shows, and knows dark mode."""
    picture = (ROOT / "docs/path.svg").read_text()
    names = {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()}  # noqa: S314 (our own file)
    assert {"title", "desc"} <= names
    assert "prefers-color-scheme: dark" in picture


def test_modules_and_files_exist() -> None:
    """Each module that the walk through the rooms names is there, and it names each that is there."""
    named = set(re.findall(r"`(?:[\w./]*/)?(\w+\.py)`", TEXTS["docs/architecture.md"]))
    there = {path.name for path in (ROOT / "consumer").rglob("*.py")} - {"__init__.py", "__main__.py"}
    rooms = [ROOT / "consumer" / room for room in (".", "intake", "matching", "delivery", "sending")]
    walked = {path.name for room in rooms for path in room.glob("*.py")} & there
    assert named <= there
    assert walked <= named


def test_settings_exist() -> None:
    """Each variable that is named is a setting, a property that librdkafka knows, or one that tests read."""
    others = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "KAFKA_TEST_REQUIRED", "KAFKA_A_B"}
    refused = {"KAFKA_ENABLE_AUTO_COMMIT", "KAFKA_ISOLATION_LEVEL", "KAFKA_ACKS"}
    named = {
        name
        for content in TEXTS.values()
        for name in re.findall(r"\b(?:KAFKA|WEBHOOK|DATABASE|OPS|API|LOG)_[A-Z0-9_]*[A-Z0-9]\b", content)
    }
    named -= others | refused | settings.known_names()
    assert all(name.startswith("KAFKA_") for name in named), named
    properties = {name.removeprefix("KAFKA_").lower().replace("_", "."): "1" for name in named}
    values = {"group.protocol": "consumer", "auto.offset.reset": "latest", "security.protocol": "ssl"}
    values |= {"sasl.oauthbearer.method": "oidc", "session.timeout.ms": "60000"}
    assert known_properties({name: values.get(name, value) for name, value in properties.items()})[1] == []
    for name in refused:
        with pytest.raises(SettingsError, match=name):
            settings.load(settings.KafkaSettings, {"KAFKA_BOOTSTRAP_SERVERS": "b:1", name: "1"})


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of each line in a shell block that runs our command."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for page, info, body in BLOCKS:
        if info != "sh":
            continue
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"( <<?| >>?| &$).*", "", line), comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words[:3] == ["docker", "compose", "exec"]:
                assert words[3] in compose["services"], line
                assert words[4:7] == ["python", "-m", "consumer"], line
                words = ["kafka-webhooks", *words[7:]]
            if words[:1] == ["kafka-webhooks"]:
                yield page, words[1:]


@pytest.mark.parametrize(("page", "words"), list(command_lines()))
def test_command_lines_parse(page: str, words: list[str]) -> None:
    """Each command line in a shell block is taken by the real command line: command, options, values, arguments."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words, page
        assert words[0] in command.commands, (page, words)
        command, words = command.commands[words[0]], words[1:]
    command.make_context("kafka-webhooks", list(words))


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_the_text_exist(page: str) -> None:
    """Each command and option that the text names, exists; each target of make too."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for block in BLOCKS if block.page == page for line in block.text.splitlines()]
    spans = code(prose(TEXTS[page])) + lines
    for span in spans:
        if target := re.match(r"make (\w+)", span):
            assert target[1] in targets, span
    for span in code(prose(TEXTS[page])):
        words = span.split()
        if words[0] != "kafka-webhooks":
            continue
        command: Any = typer.main.get_command(app)
        for word in words[1:]:
            if hasattr(command, "commands"):
                assert word in command.commands, span
                command = command.commands[word]
            elif word.startswith("-"):
                assert any(word in parameter.opts for parameter in command.params), span


# SQL.

BINDS: dict[str, object] = {
    "url": "https://example.com/new",
    "event_type": "user.created",
    "id": 1,
    "subscription_id": 1,
    "webhook_id": "msg_0",
    "new_secret": "new",
    "in_a_day": NOW + timedelta(days=1),
    "a_month_ago": NOW + timedelta(days=1),  # so that what is made here is old
}
STATEMENTS = [block for block in BLOCKS if block.info == "sql"]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A subscription with a secret, one of its deliveries exhausted (id 1) and one parked, and a payload left over."""
    subscriptions.add(engine, "https://example.com/hooks", "user.created", "a secret")
    events = [
        Event(RecordId("users", 0, offset, 1), "user.created", f"msg_{offset}", b"{}", "application/json", None, None)
        for offset in range(3)
    ]
    now = NOW.timestamp()
    late = ledger.NewDelivery(events[0], 1, "https://example.com/hooks", 10, "exhausted", None, now, "status 500", 500)
    ledger.park(engine, "webhooks", [late])
    ledger.park(engine, "webhooks", [late._replace(event=events[1], attempt=1, status="parked", next_attempt_at=now)])
    with engine.begin() as connection:
        record = {"group_id": "webhooks", "topic": "users", "partition_no": 0, "record_offset": 2, "record_ts": 1}
        connection.execute(insert(Payload).values(**record, event_type="t", webhook_id="msg_2"))
        connection.execute(text("CREATE TABLE IF NOT EXISTS webhook_inbox (webhook_id VARCHAR(64) PRIMARY KEY)"))
    return engine


@pytest.mark.parametrize("block", STATEMENTS, ids=lambda block: f"{block.page}: {block.text[:40]}")
def test_sql_runs(filled: Engine, block: Block) -> None:
    """Each statement runs on the migrated tables and does something; Oracle's reader takes it too (the fixture)."""
    statement = text(block.text)
    if block.text.startswith("CREATE TABLE webhook_inbox"):
        with filled.begin() as connection:
            connection.execute(text("DROP TABLE webhook_inbox"))
            connection.execute(statement)
        return
    if "enabled = 0" in block.text and block.text.startswith("SELECT"):
        ledger.disable_subscription(filled, 1, "the receiver answered 410 Gone")
    with filled.connect() as connection:
        result = connection.execute(statement, {name: BINDS[name] for name in statement._bindparams})
        assert result.all() if result.returns_rows else result.rowcount > 0
        connection.rollback()


def test_marked_sql_is_oracles() -> None:
    """What only Oracle takes is read by Oracle's reader."""
    found = [block for block in BLOCKS if block.info == "sql oracle"]
    assert found
    for block in found:
        for statement in sqlglot.parse(block.text, dialect="oracle"):
            assert statement is not None
            assert not isinstance(statement, exp.Command), block


def granted(grantee: str) -> set[tuple[str, str]]:
    blocks = "".join(block.text for block in BLOCKS if block.info == "sql oracle")
    return {
        (action, table)
        for actions, table in re.findall(rf"GRANT ([A-Z, ]+) ON (\w+) TO {grantee};", blocks)
        for action in actions.split(", ")
    }


@pytest.fixture
def used(engine: Engine) -> set[tuple[str, str]]:
    """What the engine's statements do from now on, to which table: as SQLite's authorizer is told."""
    found: set[tuple[str, str]] = set()
    names = {sqlite3.SQLITE_READ: "SELECT", sqlite3.SQLITE_INSERT: "INSERT", sqlite3.SQLITE_DELETE: "DELETE"}
    names |= {sqlite3.SQLITE_UPDATE: "UPDATE"}

    def authorize(action: int, table: str | None, _column: str | None, _db: str | None, trigger: str | None) -> int:
        if action in names and table and not table.startswith("sqlite_") and trigger is None:
            found.add((names[action], table))
        return sqlite3.SQLITE_OK

    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.set_authorizer(authorize))
    return found


def test_grants_of_a_worker(engine: Engine, used: set[tuple[str, str]]) -> None:
    """A worker's account is granted what its statements need, and no more."""
    subscriptions.add(engine, "https://a.example", "t")
    used.clear()
    schema.state(engine)
    find_endpoints(engine, ["t"], (b"key",), str.encode)
    stored = Event(RecordId("t", 0, 1, 1), "t", "msg_1", b"{}", "application/json", None, None)
    now = NOW.timestamp()
    ledger.park(engine, "g", [ledger.NewDelivery(stored, 1, "https://a.example", 0, "parked", now, None, None, None)])
    (row,) = ledger.due(engine, "g", {"t": [0]}, now, 1, (), (b"key",), str.encode)
    ledger.next_due_at(engine, "g", {"t": [0]})
    ledger.settled_keys(engine, "g", "t", 0, 0)
    ledger.disable_subscription(engine, 1, "gone")
    ledger.reconcile(engine, now)
    ledger.record(engine, [ledger.AttemptResult(row.id, 0, "delivered", None, None, 200, now)])
    ledger.prune(engine, "g", "t", 0, 2)
    ledger.counts(engine, "g")
    assert used == granted("webhooks_service")


def test_grants_of_an_administrator(engine: Engine, used: set[tuple[str, str]]) -> None:
    """The account of the API and of `subscriptions` is granted what its statements need, and no more."""
    subscriptions.add(engine, "https://a.example", "t")
    subscriptions.list_all(engine)
    subscriptions.remove(engine, 1)
    used.discard(("DELETE", "webhook_secrets"))  # by the foreign key's cascade, which needs no grant
    assert used == granted("webhooks_admin")


def test_adoption_by_the_dba(tmp_path: Path) -> None:
    """The script that the documented command prints adopts a table that Alembic does not know."""
    (block,) = [block for block in BLOCKS if "0001:head" in block.text]
    path = tmp_path / "webhooks.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE webhook_subscriptions (id INTEGER PRIMARY KEY, url VARCHAR(255) NOT NULL,"
        " event_type VARCHAR(50) NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
    )
    connection.execute("INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://a.example', 't')")
    for line in block.text.splitlines():
        connection.executescript(printed(shlex.split(line.partition(">")[0]), path))
    assert connection.execute("SELECT id, url, enabled FROM webhook_subscriptions").fetchall() == [
        (1, "https://a.example", 1)
    ]
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(path),)]
    connection.close()


def printed(words: list[str], path: Path) -> str:
    command = [sys.executable, "-m", "consumer", *words[1:]]
    variables = environment({"DATABASE_URL": f"sqlite:///{path}"})
    ran = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


def head(path: Path) -> str:
    engine = database(path)
    try:
        return schema.state(engine).head
    finally:
        engine.dispose()
