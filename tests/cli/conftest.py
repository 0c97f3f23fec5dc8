"""The command line as users run it."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine

from consumer.cli.app import main
from tests.databases import url_of
from tests.processes import PROGRAM, Command, Start, environment
from tests.sending.conftest import authority, net, receive  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def _logs_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command called in this process configures logging with its test's stderr: no logger may cache that."""
    configure = structlog.configure
    monkeypatch.setattr(
        "structlog.configure", lambda **options: configure(**options | {"cache_logger_on_first_use": False})
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
def database(engine: Engine) -> dict[str, str]:
    """The setting of a migrated database."""
    return {"DATABASE_URL": url_of(engine)}


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a command to its end, in an empty directory; keywords are its environment."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=200,
            cwd=tmp_path,
            env=environment(variables),
            check=False,
        )

    return run


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command as `command` does, but in this process, which takes a tenth of the time."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patch.setattr("os.environ", environment(variables))
            status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command that runs until it is stopped."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(variables),
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()
