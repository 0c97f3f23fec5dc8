"""Commands at a terminal: a question before an irreversible change, progress bars, and Ctrl-C."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from consumer.ledger import store
from consumer.subscriptions import repository
from tests.databases import url_of
from tests.ledger.rows_kit import GROUP, URL, make_event, parked, query, run
from tests.processes import PROGRAM, environment
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")

QUESTION = "Redeliver 3 deliveries? [y/N]:"
# A separate program, because forking a process with threads, which this one may have, is not safe.
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Terminal:
    """A command whose stdin, stdout and stderr are one terminal."""

    def __init__(self, words: tuple[str, ...], directory: Path, settings: dict[str, str]) -> None:
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *PROGRAM, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env=environment(settings),
        )

    def until(self, said: str) -> None:
        """Waits until the output contains this."""
        eventually(lambda: said in self.shown, meanwhile=self._read, otherwise=lambda: self.shown)

    def type(self, keys: str) -> None:
        """Types this; `^C` and `^D` are control characters."""
        assert self.process.stdin is not None
        self.process.stdin.write(keys.replace("^C", "\x03").replace("^D", "\x04").encode())
        self.process.stdin.flush()

    def end(self) -> int:
        """The exit status."""
        eventually(lambda: self.process.poll() is not None, meanwhile=self._read, otherwise=lambda: self.shown)
        while self._read():
            continue
        return self.process.wait()

    def _read(self) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 0.05)
        part = os.read(self.process.stdout.fileno(), 65536) if ready else b""
        self.shown += part.decode()
        return bool(part)


@pytest.fixture
def settings(engine: Engine) -> dict[str, str]:
    """Settings with three exhausted deliveries and no worker to send them."""
    subscription = repository.add(engine, URL, "a")
    rows = [parked(make_event(offset), subscription, status="exhausted", next_attempt_at=None) for offset in range(3)]
    store.park(engine, GROUP, rows, 100.0)
    return {"DATABASE_URL": url_of(engine), "TERM": "xterm"}


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(settings: dict[str, str], tmp_path: Path) -> Iterator[Open]:
    """Opens terminals, each with a command."""
    opened: list[Terminal] = []

    def make(*words: str, **variables: str) -> Terminal:
        opened.append(Terminal(words, tmp_path, settings | variables))
        return opened[-1]

    yield make
    for each in opened:
        each.process.kill()
        each.process.communicate()


def marked(engine: Engine) -> int:
    found: int = query(engine, "SELECT count(*) FROM webhook_deliveries WHERE status = 'parked'")[0][0]
    return found


@pytest.mark.parametrize(
    ("keys", "status", "says"), [("n\n", 1, "nothing was changed"), ("^D", 1, "nothing was changed"), ("^C", 0, "")]
)
def test_nothing_is_done_without_a_yes(engine: Engine, terminal: Open, keys: str, status: int, says: str) -> None:
    """Any other answer to the question changes nothing."""
    command = terminal("deliveries", "redeliver", "--status", "exhausted")
    command.until(QUESTION)
    time.sleep(0.2)  # Python loses a Ctrl-C between the question and the read
    command.type(keys)
    assert command.end() == status
    assert says in command.shown
    assert "Traceback" not in command.shown
    assert marked(engine) == 0


def test_a_bar_shows_progress_until_ctrl_c(engine: Engine, terminal: Open) -> None:
    """After a yes the deliveries are due and watched; Ctrl-C ends only the watching, with status 0."""
    command = terminal("deliveries", "redeliver", "--status", "exhausted")
    command.until(QUESTION)
    command.type("y\n")
    command.until("0 delivered, 3 still owed")
    assert marked(engine) == 3
    assert re.search(r"\[#+\] +100%  3 due now", command.shown)
    run(engine, "UPDATE webhook_deliveries SET status = 'delivered' WHERE id = 1")
    command.until("1 delivered, 2 still owed")
    assert re.search(r"\[#+-+\] +33% .* 1 delivered, 2 still owed", command.shown)
    command.type("^C")
    assert command.end() == 0
    assert "the workers send the rest" in command.shown
    assert "Traceback" not in command.shown


def test_no_bar_goes_where_no_terminal_is(terminal: Open) -> None:
    """A table on a terminal is the same as in a pipe, without colours or cursor movements."""
    command = terminal("deliveries", "list")
    assert command.end() == 0
    assert len(command.shown.splitlines()) == 4
    assert "\x1b" not in command.shown


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_the_log_has_colours_unless_no_color_is_set(terminal: Open, no_color: str | None, *, coloured: bool) -> None:
    """As no-color.org defines it: NO_COLOR is set and not empty."""
    command = terminal("api", API_PORT="0", **({} if no_color is None else {"NO_COLOR": no_color}))
    command.until("listening")
    command.type("^C")
    assert command.end() == 0
    assert ("\x1b[" in command.shown) == coloured
