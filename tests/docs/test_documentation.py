"""The documentation against the code: tables, numbers, links, commands, settings."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import pytest
import yaml
from requests.exceptions import ConnectionError as NoConnection
from sqlalchemy import Engine, update

from consumer.cli.app import GROUPS
from consumer.config import settings
from consumer.config.environment import load
from consumer.delivery import breaker, delivery, lanes, limits
from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.failing import Failing
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.errors import SettingsError
from consumer.events.event import Event, RecordId
from consumer.intake import commits
from consumer.kafka.client import known_properties
from consumer.ledger import ordering, outbox
from consumer.ledger.rows import NewDelivery, OperationalEvent
from consumer.matching.selection import Budget
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.telemetry.metrics import Metrics, Readings, registry
from consumer.worker.front import Front
from consumer.worker.losses import Losses
from consumer.worker.outbox_relay import _cloudevent
from consumer.worker.refusals import REASON, dead_lettered
from models import Base, Status, Subscription
from tests.commands import commands
from tests.delivery.store_kit import Store
from tests.docs.documentation import BLOCKS, ROOT, SOURCE, TEXTS, code, prose, rows, table_behind

COMMANDS = commands()

# Tables.


def test_settings_table() -> None:
    """The table of docs/settings.md is generated from the settings."""
    table = TEXTS["docs/settings.md"].split("python -m consumer.config.settings` -->\n")[1].split("\n<!-- end")[0]
    assert table == settings.table()


def test_metrics_table() -> None:
    """All metrics, and no others, are documented with labels and type."""
    of_worker = registry(Metrics(), lambda: Readings(lag={("t", 0): 1})).collect()
    families = [*of_worker, *Front([]).own()]
    names = {f"{family.name}_total" if family.type == "counter" else family.name: family.type for family in families}
    documented = {code(name)[0].partition("{")[0]: kind for name, kind, _ in rows("docs/operations.md", "Metrics")}
    assert documented == names


def test_reasons_table() -> None:
    """The documented reasons of /readyz are in the code, word for word."""
    reasons = [words for reason, *_ in table_behind("docs/operations.md", "| reason |") for words in code(reason)]
    assert len(reasons) > 5
    assert [words for words in reasons if words not in SOURCE] == []


def test_dead_letter_headers_and_reasons() -> None:
    """All headers and reasons of a dead letter, and no others, are documented."""
    table = {name: says for names, says in rows("docs/operations.md", "Dead letters") for name in code(names)}
    letters = (ROOT / "consumer/intake/dead_letters.py").read_text()
    measures = re.findall(r'\{letter\.prefix\}([a-z0-9]+)"', letters)
    assert set(table) == {
        *re.findall(r'\("(dead-letter-[a-z0-9]+)"', letters),
        *(f"dead-letter-{each}" for each in measures),
    }
    undecodable = set(re.findall(r'Undecodable\(\s*"(\w+)"', SOURCE))
    undecodable |= set(re.findall(r'Unreadable\("(\w+)"', (ROOT / "consumer/intake/record.py").read_text()))
    assert set(code(table["dead-letter-reason"])) == undecodable | {REASON}
    told = re.findall(r'^ +"([a-z-]+)": ', (ROOT / "consumer/intake/exhausted.py").read_text(), re.MULTILINE)
    documented = [name for names, _ in rows("docs/operations.md", "Events that were given up") for name in code(names)]
    assert set(documented) == {f"exhausted-{each}" for each in (*RecordId._fields, *told, *measures)}


def test_tables() -> None:
    """All tables, and no others, are documented."""
    documented = [code(row[0])[0] for row in table_behind("docs/database.md", "| table | a row is |")]
    assert sorted(documented) == sorted(Base.metadata.tables)


def test_statuses() -> None:
    """All states of a stored delivery, and no others, are documented."""
    documented = [code(row[0])[0] for row in table_behind("docs/database.md", "| status |")]
    assert set(documented) == {status.value for status in Status}


def test_indexes() -> None:
    """All indexes, and no others, are documented with their columns."""
    documented = {code(name)[0]: code(columns) for name, columns, _ in rows("docs/database.md", "Indexes")}
    indexes = [index for table in Base.metadata.tables.values() for index in table.indexes]
    assert documented == {index.name: [column.name for column in index.columns] for index in indexes}


def test_revisions() -> None:
    """All migrations, and no others, are documented."""
    there = {path.name[:4] for path in (ROOT / "alembic/versions").glob("[0-9]*.py")}
    assert {code(row[0])[0] for row in rows("docs/database.md", "Existing tables")} == there


def test_log_lines() -> None:
    """Each documented log line is in the code, word for word."""
    lines = [code(row[0])[0] for row in rows("docs/operations.md", "The log")]
    assert len(lines) > 10
    assert [line for line in lines if f'"{line}"' not in SOURCE] == []


# Operational events.


def test_operational_events(engine: Engine) -> None:
    """All types, and no others, are documented with their fields."""
    documented = {code(row[0])[0]: set(code(row[2])) for row in table_behind("docs/operations.md", "| type | when |")}
    assert set(documented) == set(re.findall(r'OperationalEvent\(\s*"([a-z_.]+)"', SOURCE))
    assert {each.type: set(each.data) for each in happened(engine)} == documented


def test_attributes_of_operational_events() -> None:
    """All attributes of the CloudEvent, and no others, are documented."""
    documented = [code(row[0])[0] for row in table_behind("docs/operations.md", "| attribute |")]
    published = json.loads(_cloudevent("kafka-webhooks/g", OperationalEvent("a.b", "1", {"subscription_id": 1}), 0.0))
    assert list(published) == documented


def happened(engine: Engine) -> list[OperationalEvent]:
    """One event of each type: subscriptions recover, pause, resume and so on; events are given up, or lost."""
    stored = Store(engine)
    failing = Failing(stored.notes, "webhooks", 60.0)
    first, second, third = (repository.add(engine, f"https://{name}.example", "t") for name in "abc")
    marked = datetime.fromtimestamp(1000, UTC)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(failing_since=marked))
    failing.succeeded(Endpoint(first, "https://a.example", (b"key",), failing_since=1000.0), 2000.0)
    failing.disable(Endpoint(second, "https://b.example", (b"key",), failing_since=1000.0), "gone", 2000.0)
    fails = Endpoint(third, "https://c.example", (b"key",), failing_since=1000.0)
    for number in range(6):
        failing.failed(fails, 1000.0 + 20 * number, [f"msg_{number}"])
    stored.write_all()
    failing.probes(third, datetime.fromtimestamp(1060, UTC))
    failing.succeeded(replace(fails, paused=True), 2000.0)
    stored.write_all()
    lanes = Lanes(1)
    settling = Settling(
        lanes,
        stored.parking,
        failing,
        Metrics(),
        TakenUp(Memory()),
        Budget(lambda: 0.0),
        schedule=(),
        jitter=0.0,
        in_memory=0.0,
        operations_topic="operations",
        owns=lambda _: True,
    )
    event = Event(RecordId("t", 0, 1, 1), "t", "msg_1", b"{}", "application/json", None, None)
    lane = lanes.lane(Endpoint(first, "https://a.example", (b"key",)))
    settling.on_result(Delivery(event, lane, OpenRecord(lambda _: None, 1, 1)), NoConnection("refused"))
    Losses("webhooks", stored.notes).report(("t", 0, first), 5, 9, "retention removed their records")
    stored.write_all()
    refused = dead_lettered(NewDelivery(event, first, "https://a.example", 1, "parked", 0.0), "a rule of ours")
    return [*(operation for _, operation, _ in outbox.pending(engine, "webhooks", 10)), refused]


# Numbers.


def test_numbers_of_the_breaker() -> None:
    """The guarantee's numbers are those of the code."""
    states = {row[0]: " ".join(row[1:]) for row in table_behind("docs/guarantee.md", "| state | requests sent |")}
    assert f"{breaker.IN_A_ROW} failures in a row" in states["closed"]
    assert f"half of at least {breaker.RATE_ATTEMPTS} attempts" in states["closed"]
    assert f"{breaker.BUCKET:.0f} to {2 * breaker.BUCKET:.0f} s" in states["closed"]
    assert (
        f"{breaker.FIRST_OPEN:.0f} s at first, doubled each time up to {breaker.LONGEST_OPEN:.0f} s" in states["open"]
    )
    assert f"{breaker.LONGEST_ASKED / 60:.0f} minutes at most" in states["open"]
    assert (breaker.STRETCH, 1 / breaker.TOLERATED, breaker.STEP) == (0.2, 0.2, 1.0)  # "a fifth", "each second"
    assert f"{breaker.MEMORY / 60:.0f} minutes without a failure" in states["slow start"]


def test_bounds_of_lanes() -> None:
    """The guarantee's numbers on queues are those of the code."""
    text = TEXTS["docs/guarantee.md"]
    assert f"holds {delivery.LANE_DELIVERIES:,} deliveries or {delivery.LANE_BYTES // 2**20} MiB" in text
    assert f"hold {lanes.ALL_DELIVERIES:,} deliveries or {lanes.ALL_BYTES // 2**20} MiB" in text
    assert f"open requests hold {limits.OPEN_BYTES // 2**20} MiB together" in text
    assert f"hold {limits.MEMORY // 2**20} MiB in a worker. At {limits.MEMORY * 3 // 4 // 2**20} MiB" in text
    assert f"holds {limits.MEMORY // 2**20} MiB of events at most" in TEXTS["docs/operations.md"]
    assert (lanes.STILL, lanes.SLOW) == (0.25, 1.0)  # "a quarter of a second", "less than a second"
    assert (lanes.NEW_CONNECTIONS, lanes.BUSY) == (8, 4)  # "eight new ones", "four times as many"
    assert f"every {commits.COMMIT_EVERY * 1000:.0f} ms, and after {commits.COMMIT_RECORDS} settled records" in text
    assert f"At most {delivery.OPEN_DELIVERIES:,} events of a subscription are in open requests" in text
    assert delivery.BATCH_BYTES == 2**20  # "their bodies together reach 1 MiB"
    assert (breaker.CREEP, ordering.RUN) == (8, 50)  # "by an eighth", "fifty at a time"


# Links, names, commands.


def anchors(content: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_resolve(page: str) -> None:
    """Each relative link leads to a file, and to the heading in it that it names."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_pages_are_linked() -> None:
    """The index links each page of docs/, and the README links the index."""
    index = "docs/README.md"
    assert f"]({index})" in TEXTS["README.md"]
    pages = {page.removeprefix("docs/") for page in TEXTS if page.startswith("docs/")}
    assert {page for page in pages if f"| [{page}]({page}) | " in TEXTS[index]} == pages - {"README.md"}


def test_modules_and_files_exist() -> None:
    """docs/architecture.md names all packages, and only modules that exist."""
    text = TEXTS["docs/architecture.md"]
    named = set(re.findall(r"`(?:[\w./]*/)?(\w+\.py)`", text))
    assert named <= {path.name for path in (ROOT / "consumer").rglob("*.py")}
    packages = {path.parent.name for path in (ROOT / "consumer").glob("*/__init__.py")}
    first_cells = [re.sub(r"\(.*?\)", "", row[0]) for row in rows("docs/architecture.md", "Packages")]
    assert {name for cell in first_cells for name in re.findall(r"\w+", cell)} == packages


def functions() -> set[str]:
    """Each function as `module.function`, each method and property as `Class.method`."""
    found = set()
    for path in (ROOT / "consumer").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for name, body in [(path.stem, tree.body)] + [
            (c.name, c.body) for c in tree.body if isinstance(c, ast.ClassDef)
        ]:
            found |= {f"{name}.{each.name}" for each in body if isinstance(each, ast.FunctionDef)}
    return found


def test_functions_of_the_diagram_exist() -> None:
    """Each function in the diagram of docs/architecture.md exists."""
    (diagram,) = [block.text for block in BLOCKS if block.page == "docs/architecture.md" and block.info == "mermaid"]
    named = set(re.findall(r"\b[A-Za-z]+\.[a-z_]+\b", diagram))
    assert len(named) > 20
    assert named - functions() == set()


def test_settings_exist() -> None:
    """Each variable in the text is a setting, a property of librdkafka, or a variable of the tests."""
    others = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "KAFKA_TEST_REQUIRED", "KAFKA_TEST_BOOTSTRAP_SERVERS", "KAFKA_A_B"}
    others |= {"KAFKA_VERSIONS"}
    refused = {"KAFKA_ENABLE_AUTO_COMMIT", "KAFKA_ISOLATION_LEVEL", "KAFKA_ACKS"}
    named = {
        name
        for content in TEXTS.values()
        for name in re.findall(r"\b(?:KAFKA|WEBHOOK|DATABASE|OPS|API|LOG)_[A-Z0-9_]*[A-Z0-9]\b", content)
    }
    tables = {table.upper() for table in Base.metadata.tables}  # as Oracle shows them
    named -= others | refused | tables | settings.known_names()
    assert all(name.startswith("KAFKA_") for name in named), named
    properties = {name.removeprefix("KAFKA_").lower().replace("_", "."): "1" for name in named}
    values = {"group.protocol": "consumer", "auto.offset.reset": "latest", "security.protocol": "ssl"}
    values |= {"sasl.oauthbearer.method": "oidc", "session.timeout.ms": "60000"}
    values |= {"message.max.bytes": "1000000", "compression.type": "gzip", "socket.keepalive.enable": "true"}
    assert known_properties({name: values.get(name, value) for name, value in properties.items()})[1] == []
    for name in refused:
        with pytest.raises(SettingsError, match=name):
            load(settings.KafkaSettings, {"KAFKA_BOOTSTRAP_SERVERS": "b:1", name: "1"})


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of each line in a shell block that runs our command."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for page, info, body in BLOCKS:
        if info != "sh":
            continue
        for line in body.replace("\\\n", " ").splitlines():
            words = list(
                takewhile(lambda word: not re.match(r"\d?[<>]|&$|\|\|$", word), shlex.split(line, comments=True))
            )
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words[:3] == ["docker", "compose", "exec"]:
                assert words[3] in compose["services"], line
                words = words[4:]
            if words[:1] == ["kafka-webhooks"]:
                yield page, words[1:]


@pytest.mark.parametrize(("page", "words"), list(command_lines()))
def test_command_lines_parse(page: str, words: list[str]) -> None:
    """The real command line accepts each one: command, options, values, arguments."""
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    assert name in COMMANDS, (page, words)
    COMMANDS[name].make_context("kafka-webhooks", words[len(name.split()) :])


def test_commands_table() -> None:
    """docs/commands.md has a line for each command, and no other."""
    assert {code(row[0])[0] for row in rows("docs/commands.md", "All commands")} == COMMANDS.keys()


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_the_text_exist(page: str) -> None:
    """Each command, option and target of make that the text names exists."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for block in BLOCKS if block.page == page for line in block.text.splitlines()]
    spans = code(prose(TEXTS[page])) + lines
    for span in spans:
        if target := re.match(r"make ([\w-]+)", span):
            assert target[1] in targets, span
    for span in code(prose(TEXTS[page])):
        words = span.split()
        if words[0] != "kafka-webhooks":
            continue
        name = " ".join(words[1 : 3 if words[1:2] and words[1] in GROUPS else 2])
        assert name in {*COMMANDS, *GROUPS, ""}, span
        options = [each for parameter in COMMANDS[name].params for each in parameter.opts] if name in COMMANDS else []
        assert {word for word in words if word.startswith("-")} <= {*options}, span
