"""`deliveries purge`: its selection, refusals, output and interruption."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
import typer
from sqlalchemy import Engine

from consumer.cli.deliveries import purge
from consumer.events.event import Event, RecordId
from consumer.ledger import replays, store, upkeep
from consumer.ledger.rows import AttemptFailure, NewDelivery
from consumer.subscriptions import repository
from tests.databases import url_of
from tests.ledger.rows_kit import query
from tests.processes import Command

URL = "https://example.com/hook"
DAY = 86_400.0


@pytest.fixture
def database(engine: Engine) -> dict[str, str]:
    """Settings of a command."""
    return filled(engine)


def filled(engine: Engine) -> dict[str, str]:
    """A subscription with five deliveries exhausted 40 days ago, two exhausted today, and a replay of 40 days ago."""
    repository.add(engine, URL, "a")
    keep(engine, range(5), time.time() - 40 * DAY)
    keep(engine, range(5, 7), time.time())
    old = replays.create(engine, "webhooks", 1, 0.0, 1.0, None, 1.0, [])
    replays.finish(engine, old, time.time() - 40 * DAY)
    return {"DATABASE_URL": url_of(engine)}


def keep(engine: Engine, offsets: Sequence[int], at: float) -> None:
    failure = AttemptFailure("status 503", 503, None, at)
    events = [Event(RecordId("t", 0, offset, 0), "a", f"msg_{offset}", b"{}", "", None, None) for offset in offsets]
    rows = [NewDelivery(event, 1, URL, 1, "exhausted", None, failure, failure) for event in events]
    store.park(engine, "webhooks", rows, at)


def left(engine: Engine) -> tuple[int, int, int]:
    """The numbers of deliveries, payloads and replays."""
    tables = ("webhook_deliveries", "webhook_payloads", "webhook_replays")
    deliveries, payloads, replays = (query(engine, f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables)  # noqa: S608 (names above)
    return deliveries, payloads, replays


def test_it_counts_deletes_and_reports(command: Command, database: dict[str, str], engine: Engine) -> None:
    """It reports the count before and after; a second run finds nothing and asks no question."""
    words = ("deliveries", "purge", "--older-than", "30d")
    counted = command(*words, "--dry-run", **database)
    assert (counted.returncode, counted.stdout) == (0, "5 deliveries and 1 replay would be deleted\n")
    as_json = json.loads(command(*words, "--dry-run", "--json", **database).stdout)
    before = datetime.fromisoformat(as_json.pop("before"))
    assert abs((datetime.now(UTC) - before).total_seconds() - 30 * DAY) < 120
    assert as_json == {"deliveries": 5, "replays": 1}
    assert left(engine) == (7, 7, 1)
    done = command(*words, "--yes", **database)
    assert (done.returncode, done.stdout) == (0, "5 deliveries, 5 payloads and 1 replay deleted\n")
    assert left(engine) == (2, 2, 0)
    again = json.loads(command(*words, "--json", **database).stdout)
    assert {name: again[name] for name in ("deliveries", "payloads", "replays")} == dict.fromkeys(
        ("deliveries", "payloads", "replays"), 0
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--older-than", "30d"), "Delete 5 deliveries and 1 replay that ended before"),
        (("--older-than", "1h", "--yes"), "at least a day"),
        (("--older-than", "soon", "--yes"), "neither a time"),
        (("--older-than", "30d", "--status", "parked", "--yes"), "'parked' is not one of"),
        (("--older-than", "30d", "--status", "held", "--yes"), "'held' is not one of"),
        (("--older-than", "30d", "--status", "blocked", "--yes"), "'blocked' is not one of"),
        (("--yes",), "--older-than"),
    ],
)
def test_refusals_are_2_and_delete_nothing(command: Command, engine: Engine, options: Sequence[str], said: str) -> None:
    """It refuses without a terminal or --yes, a time that is too recent and open states, before using the database."""
    refused = command("deliveries", "purge", *options, **filled(engine))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert left(engine) == (7, 7, 1)


@pytest.fixture
def _survived() -> Iterator[None]:
    """Keeps a signal that the command does not handle from ending the tests."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_survived")
def test_a_signal_ends_it_after_the_present_step(
    engine: Engine, database: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line reports the rest, which the same command deletes."""
    monkeypatch.setattr(upkeep, "BATCH", 2)
    monkeypatch.setenv("DATABASE_URL", database["DATABASE_URL"])
    monkeypatch.setenv("LOG_LEVEL", "INFO")  # overrides a .env file
    whole = upkeep.purge

    def interrupted(*arguments: object) -> Iterator[upkeep.Purged]:
        for step in whole(*arguments):  # type: ignore[arg-type]  # passed on
            os.kill(os.getpid(), signal.SIGTERM)
            yield step

    monkeypatch.setattr(upkeep, "purge", interrupted)
    with pytest.raises(typer.Exit) as ended:
        purge(older_than="30d", yes=True)
    assert ended.value.exit_code == 0
    assert "stopped; the rest is unchanged; the same command deletes it" in capsys.readouterr().err
    assert left(engine) == (5, 5, 1)
    monkeypatch.setattr(upkeep, "purge", whole)
    purge(older_than="30d", yes=True)
    assert capsys.readouterr().out == "3 deliveries, 3 payloads and 1 replay deleted\n"
