"""The examples of `--help`: each can be copied, and those that need only a database work."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert

from consumer.cli.app import COMMANDS, GROUPS, PROGRAM
from consumer.ledger import store
from models import Subscription
from tests.commands import commands
from tests.databases import url_of
from tests.ledger.rows_kit import GROUP, URL, make_event, parked, run
from tests.processes import Command

ALL = commands()
OAUTH2 = '{"token_url": "https://id.example.com/token", "client_id": "webhooks", "client_secret": "secret"}'
ALONE = {"migrate", "subscriptions", "deliveries"}  # these need only a database
NOT_ALONE = {
    "attempts",
    "backtest",
    "ping",
    "verify",
    "--verify",
    "--from",
    "--from-topic",
}  # except these, which need a receiver, or Kafka
CHOICES = {"--algorithm"}  # the help shows them
UNATTENDED = {"remove": ["--yes"], "redeliver": ["--yes", "--no-wait"]}


def examples() -> Iterator[tuple[list[str], str]]:
    """The command's words, and each shell line of its examples, as its help shows them at 80 columns."""
    for name, command in ALL.items():
        words = name.split()
        with command.make_context(" ".join([PROGRAM, *words]), [], resilient_parsing=True) as context:
            shown = command.get_help(context)
        printed = re.search(r"Examples?:(.*?)\n\n", shown, re.DOTALL)
        assert printed, words
        for line in printed[1].replace("\\\n", " ").strip().splitlines():
            yield words, line.strip()


def typed(line: str) -> list[str]:
    """The program's arguments in a shell line, without variables and redirections."""
    words = takewhile(lambda word: word not in {"<", ">", ">>", "&"}, shlex.split(line))
    return [word for word in words if not re.match(r"[A-Z_]+=", word)]


OURS = [(words, line) for words, line in examples() if not line.startswith("curl ")]


@pytest.mark.parametrize(("words", "line"), OURS)
def test_an_example_can_be_copied(words: list[str], line: str) -> None:
    """It is one line even on a narrow terminal, and its command accepts it."""
    assert typed(line)[: len(words) + 1] == [PROGRAM, *words]
    ALL[" ".join(words)].make_context(PROGRAM, typed(line)[len(words) + 1 :])


def test_a_list_of_commands_shows_their_first_sentences() -> None:
    """The table of commands, which is read without importing them, has them word for word."""
    table = {name: summary for name, (_, summary) in COMMANDS.items()}
    table |= {f"{name} {each}": summary for name, (_, more) in GROUPS.items() for each, (_, summary) in more.items()}
    assert table == {name: command.help.partition("\n")[0] for name, command in ALL.items()}


@pytest.mark.parametrize("name", ALL)
def test_an_option_describes_its_value(name: str) -> None:
    """Its placeholder is a word, not a Python type."""
    options = [each for each in ALL[name].params if each.param_type_name == "option"]
    metavars = {each.opts[0]: each.metavar for each in options if not each.is_flag}
    assert {name for name, metavar in metavars.items() if not metavar} <= CHOICES


@pytest.fixture
def database(engine: Engine) -> dict[str, str]:
    """Settings of a deployment with the subscription and deliveries that the examples name."""
    with engine.begin() as connection:
        connection.execute(insert(Subscription), {"id": 7, "url": URL, "event_type": "user.created"})
    rows = [parked(make_event(offset), 7, status="exhausted", next_attempt_at=None) for offset in (1, 2)]
    store.park(engine, GROUP, rows, 100.0)
    run(engine, "UPDATE webhook_deliveries SET id = id + 1233")
    return {
        "DATABASE_URL": url_of(engine),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_GROUP_ID": "webhooks-2",
        "WEBHOOK_SECRET": "a-secret-of-the-deployment",
        "WEBHOOK_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    }


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates the files that the examples name, in the working directory."""
    authority = trustme.CA()
    issued = authority.issue_cert("sender.test")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "client-key.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "private-ca.pem"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    ("words", "line"), [(words, line) for words, line in OURS if words[0] in ALONE and not NOT_ALONE & {*line.split()}]
)
def test_an_example_works(called: Command, database: dict[str, str], words: list[str], line: str) -> None:
    """It works on a database with the named objects; an option replaces a question or a wait."""
    more = [option for option in UNATTENDED.get(words[-1], []) if option not in line]
    given = OAUTH2 if "--oauth2" in line else "a-token-or-a-secret\n"
    done = called(*typed(line)[1:], *more, stdin=given if "<" in line else "", **database)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
