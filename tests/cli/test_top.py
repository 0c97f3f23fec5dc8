"""`top` as users run it."""

import json
import time
import uuid

import pytest
from sqlalchemy import Engine

from consumer.ledger import cursors, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.subscriptions import repository
from models import CursorReason
from tests.databases import url_of
from tests.ledger.rows_kit import GROUP, URL, expire, make_event, parked
from tests.processes import Command


@pytest.fixture
def settings(engine: Engine, mock_kafka: str) -> dict[str, str]:
    """A failing subscription with a delivery, a paused one whose events expire, and a disabled one.

    Its reason looks like markup.
    """
    failing, disabled, paused = (repository.add(engine, URL, "user.created") for _ in range(3))
    store.park(engine, GROUP, [parked(make_event(0), failing)], 96.0)
    upkeep.failing(engine, failing, 1_700_000_000.0)
    repository.set_enabled(engine, disabled, False, "[bold]moved\x1b[31m")
    repository.pause(engine, paused, "no space")
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, paused), 5, CursorReason.PAUSED)], 96.0)
    expire(engine, paused, time.time() + 7_250)
    return {
        "DATABASE_URL": url_of(engine),
        "KAFKA_BOOTSTRAP_SERVERS": mock_kafka,
        "KAFKA_TOPICS": f"t-{uuid.uuid4().hex[:8]}",
        "COLUMNS": "200",
    }


def test_the_overview_is_printed_once(called: Command, settings: dict[str, str]) -> None:
    """It is without a terminal or on request; text of others cannot control the terminal."""
    for arguments in (["top"], ["top", "--once"]):
        done = called(*arguments, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        shown = ("2023-11-14T22:13:20Z", "boom", r"[bold]moved\x1b[31m", "no space", "2 h 0 min", "Lag: 0 records")
        assert [text for text in shown if text not in done.stdout] == []


def test_the_overview_as_json(called: Command, settings: dict[str, str]) -> None:
    """Each part is a member with its name."""
    done = called("top", "--json", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["states"]["parked"] == 1
    (failing,) = found["failing"]
    assert (failing["since"], failing["last_error"], failing["waiting"]) == ("2023-11-14T22:13:20Z", "boom", 1)
    assert [each["reason"] for each in found["disabled"]] == ["[bold]moved\x1b[31m"]
    ((since, reason),) = [(each["paused_at"], each["reason"]) for each in found["paused"]]
    assert (since[-1], reason) == ("Z", "no space")
    ((end, left),) = [(each["expires"], each["kept_for"]) for each in found["expiring"]]
    assert (end[-1], left) == ("Z", "2 h 0 min")
    assert found["missing"] == []
    assert all(each["records"] == 0 for each in found["lag"])


def test_a_part_that_is_missing_is_exit_status_1(called: Command, settings: dict[str, str]) -> None:
    """The other parts are shown."""
    done = called("top", "--once", **settings | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 1
    assert "lag: no broker reachable at 127.0.0.1:1" in done.stdout
    assert "boom" in done.stdout
