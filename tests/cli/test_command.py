"""Requirements on every command: help, exit status, one line for an error, and a clean end at any time."""

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from consumer import __version__
from consumer.cli.app import COMMANDS, GROUPS
from tests.processes import OTHER, PROGRAM, Command, Start, environment
from tests.waiting import eventually

LEAST = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KAFKA_TOPICS": "users",
    "DATABASE_URL": "sqlite:///absent/webhooks.db",
    "WEBHOOK_SECRET": "secret",
    "OPS_PORT": "0",
}


@pytest.mark.parametrize("words", [[], *([group] for group in GROUPS)])
def test_help_lists_every_command(called: Command, words: list[str]) -> None:
    """The program's help, also without arguments, and each group's help list all commands; no line is cut."""
    shown = called(*words, "--help")
    names = GROUPS[words[0]][1] if words else {**COMMANDS, **GROUPS}
    assert shown.returncode == 0
    assert all(re.search(rf"^  {name} ", shown.stdout, re.MULTILINE) for name in names)
    assert not re.search(r"[a-z.]\.\.\.$", shown.stdout, re.MULTILINE)
    assert called(*words).returncode == 2


def test_version_needs_no_heavy_imports(command: Command) -> None:
    """`--version` prints the package's version and its build without heavy imports."""
    started = os.times()
    build = "compiled" if OTHER else "pure Python"
    assert command("--version").stdout == f"kafka-webhooks {__version__} ({build})\n"
    assert os.times().children_user - started.children_user < 1


@pytest.mark.parametrize(
    "words",
    [
        ["deliver"],
        ["publish", "users", "{"],
        ["publish", "users", "{}", "--count", "2", "--id", "1"],
        ["listen", "--secret", "whsec_?"],
        ["subscriptions"],
        ["api-token", "local", "--scope", "read"],
        ["api-token", "a", "--scope", "all"],
        ["subscriptions", "ping", "7", "--event-type", "a b"],
        ["subscriptions", "show", "99999999999999999999"],
        ["subscriptions", "disable", "1", "--reason", "no \udcff text"],
        ["deliveries", "list", "--status", "lost"],
        ["deliveries", "list", "--since", "yesterday"],
        ["deliveries", "redeliver"],
        ["deliveries", "redeliver", "1", "--status", "held"],
        ["deliveries", "redeliver", "--status", "delivered"],
        ["explain", "orders", "--offset", "1"],
        ["replay", "--subscription", "1"],
        ["replay", "--since", "1h"],
        ["replay", "--resume", "1", "--since", "1h"],
        ["replay", "--resume", "1", "--dry-run"],
        ["replay", "--watch", "1", "--cancel", "1"],
        ["subscriptions", "add", "https://example.com", "a", "--from", "soon"],
        ["replay", "--subscription", "1", "--since", "1h", "--json"],
        ["migrate", "--revision", "0001:head"],
        ["migrate", "--sql", "--revision", "0001:nope"],
    ],
)
def test_wrong_usage_is_2(called: Command, words: list[str]) -> None:
    """A command with invalid usage ends with status 2 and a line with the reason, whatever is set."""
    ended = called(*words)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "is not set" not in ended.stderr
    assert ended.stdout == ""
    if words[0] in GROUPS.keys() & set(words[-1:]):  # a group alone shows its help
        assert ended.stderr.startswith(f"Usage: kafka-webhooks {words[0]} [OPTIONS] COMMAND")
    else:
        assert len(ended.stderr.splitlines()) == 1
        assert not re.search("this is a bug|Value error|Input should", ended.stderr)


@pytest.mark.parametrize(
    "line", ["run", "api", "migrate", "publish t {}", "listen", "deliveries adopt --from-group old", "explain orders"]
)
def test_missing_settings_are_2(called: Command, line: str) -> None:
    """Each missing setting is one line with its name and a valid value."""
    ended = called(*line.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    for text in ended.stderr.splitlines():
        assert re.match(r"kafka-webhooks: [A-Z_]+ is not set\. .* For example: [A-Z_]+=.", text)


@pytest.mark.parametrize("words", [["run"], ["publish", "users", "{}"]])
def test_a_misspelt_setting_is_reported_once(start: Start, words: list[str]) -> None:
    """A command that reads settings prints one line with the most similar name and never the value."""
    process = start(*words, **LEAST, WEBHOOK_TIMEOUTS="hidden")
    assert process.stderr is not None
    errors = last = ""
    while not last or "variable is ignored" in last or "variable is ignored" not in errors:  # and one line more
        errors += (last := process.stderr.readline())
        assert last, errors
    process.send_signal(signal.SIGTERM)
    errors += process.communicate(timeout=120)[1]
    told = [json.loads(line) for line in errors.splitlines() if "variable is ignored" in line]
    assert [(entry["variable"], entry["nearest"]) for entry in told] == [("WEBHOOK_TIMEOUTS", "WEBHOOK_TIMEOUT")]
    assert "hidden" not in errors


@pytest.mark.parametrize("line", ["migrate", "subscriptions list", "deliveries redeliver 1", "replay --resume 1"])
def test_an_absent_database_is_1(called: Command, line: str, tmp_path: Path) -> None:
    """A database that cannot be opened is one line with its path and the remedy. No file is created."""
    ended = called(*line.split(), **LEAST)
    assert ended.returncode == 1
    where = r"/.*/absent/webhooks\.db cannot be .*: there is no directory .*/absent: .*\n"
    assert re.fullmatch(f"kafka-webhooks: {where}", ended.stderr)
    misspelt = called(*line.split(), **{**LEAST, "DATABASE_URL": "sqlite:///misspelt.db"})
    migrates = line == "migrate"
    assert ("correct DATABASE_URL, or make it with kafka-webhooks migrate" in misspelt.stderr) is not migrates
    assert any(tmp_path.iterdir()) is migrates


@pytest.mark.parametrize("words", [["--help"], ["subscriptions", "list", "--json"]])
def test_output_that_cannot_be_written_is_1(tmp_path: Path, words: list[str], database: dict[str, str]) -> None:
    """A full disk and a closed stdout are reported in one line. A reader that closes its pipe is no error."""
    program = shlex.join([*PROGRAM, *words])

    def run(redirected: str) -> tuple[int, str]:
        ended = subprocess.run(
            ["/bin/bash", "-c", f"{program} {redirected}; exit ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            env=environment(database),
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stderr

    full = "the output cannot be written: No space left on device; redirect it to a place with free space"
    assert run("> /dev/full") == (1, f"kafka-webhooks: {full}\n")
    closed = "the standard output is closed; redirect it to a file, or to /dev/null"
    assert run(">&-") == (1, f"kafka-webhooks: {closed}\n")
    assert run("| true") == (1, "")
    assert run("<&- 2>&-") == (0, "")


def test_a_foreign_models_module(command: Command, tmp_path: Path, database: dict[str, str]) -> None:
    """A file of this name in the working directory is not imported."""
    (tmp_path / "models.py").write_text("raise SystemExit('not ours')\n")
    assert command("subscriptions", "list", **database).returncode == 0


@pytest.mark.parametrize("words", [["listen"], ["api"]])
def test_a_taken_port_is_1(command: Command, words: list[str]) -> None:
    """The error names a port that another process uses."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ["--port", str(port)] if words == ["listen"] else []
        ended = command(*words, *options, **LEAST, API_PORT=str(port))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(("wait", "number"), [(0, signal.SIGTERM), (0.3, signal.SIGINT), (1.0, signal.SIGTERM)])
@pytest.mark.parametrize("line", ["run", "publish users {}", "check", "listen --port 0", "api"])
def test_a_signal_at_any_time_ends_with_0(start: Start, line: str, wait: float, number: signal.Signals) -> None:
    """This includes the start, the wait for Kafka, the back-off from an absent database, and serving."""
    process = start(*line.split(), **LEAST, API_PORT="0")
    eventually(lambda: _handles_signals(process.pid), every=0.01)
    time.sleep(wait)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.parametrize("theirs", ["5d1e7c0a9b42", "zebra"])
def test_a_revision_of_another_program_is_told_alike(called: Command, tmp_path: Path, theirs: str) -> None:
    """`migrate` would not help: it and `check` name the table and the revision, whatever its name sorts behind."""
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    assert called("migrate", **database).returncode == 0
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("UPDATE webhook_alembic_version SET version_num = ?", [theirs])
        connection.commit()
    said = f"webhook_alembic_version holds {theirs}: one revision of this program belongs there"
    assert said in called("migrate", **database).stderr
    assert f"✗ tables: {said}" in called("check", **{**LEAST, **database}).stdout


@pytest.mark.parametrize("name", ["DATABASE_URL", "WEBHOOK_SECRET"])
def test_check_tells_wrong_settings_from_other_failures(command: Command, name: str) -> None:
    """With its settings complete it ends with 1 where nothing answers; with one missing, as `run` does, with 2."""
    assert [command("check", **{**LEAST, name: ""}).returncode, command("check", **LEAST).returncode] == [2, 1]


def _handles_signals(pid: int) -> bool:
    """Whether the process has a handler of SIGTERM: Python itself has none."""
    found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_migrate_leaves_newer_tables_as_they_are(called: Command, tmp_path: Path) -> None:
    """An older release that is installed again works with them, and its job of migrating succeeds.

    A revision that the tables have passed is refused: nothing takes them back.
    """
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    assert called("migrate", "--revision", "0001", **database).stdout == "migrated from nothing to 0001\n"
    assert called("migrate", "--revision", "0001", **database).stdout == "up to date at 0001\n"
    assert called("migrate", "--revision", "base", **database).returncode == 2
    assert called("migrate", **database).stdout == "migrated from 0001 to 0002\n"
    passed = called("migrate", "--revision", "0001", **database)
    assert (passed.returncode, passed.stdout) == (2, "")
    assert ", and are not taken back" in passed.stderr
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("UPDATE webhook_alembic_version SET version_num = '0099'")
    newer = called("migrate", **database)
    said = "the tables are at 0099, of a later release, with which this one works; nothing was changed\n"
    assert (newer.returncode, newer.stdout, newer.stderr) == (0, said, "")


def test_migrations_without_a_connection(command: Command) -> None:
    """`--sql` prints Oracle's statements without a server, all of them or from a revision on."""
    database = {"DATABASE_URL": "oracle+oracledb://u:p@127.0.0.1:1/?service_name=X"}
    whole = command("migrate", "--sql", **database)
    rest = command("migrate", "--sql", "--revision", "0001:head", **database)
    assert whole.returncode == rest.returncode == 0
    assert "CREATE TABLE webhook_subscriptions" in whole.stdout
    assert "CREATE TABLE webhook_subscriptions" not in rest.stdout
    assert "CREATE TABLE webhook_deliveries" in rest.stdout
