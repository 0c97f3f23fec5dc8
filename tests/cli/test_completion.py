"""Completion in a real bash, and the scripts for other shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PROGRAM, Command, environment

BASH = shutil.which("bash") or ""
ASK = """
source <(kafka-webhooks completion bash)
complete -p kafka-webhooks
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_kafka_webhooks_completion kafka-webhooks
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the command `kafka-webhooks`."""
    command = tmp_path / "kafka-webhooks"
    command.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    command.chmod(0o755)
    return environment({"PATH": f"{tmp_path}:{os.environ['PATH']}"})


@pytest.mark.skipif(not BASH, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "some", "others"),
    [
        (["subs"], {"subscriptions"}, {"run", "subs"}),
        ([""], {"run", "replay", "deliveries", "completion"}, {"--help"}),
        (["subscriptions", "ro"], {"rotate-secret"}, {"add"}),
        (["subscriptions", "add", "--ord"], {"--ordering"}, {"--tenant"}),
        (["deliveries", "purge", "--status", ""], {"exhausted", "delivered"}, {"parked"}),
        (["completion", ""], {"bash", "zsh", "fish"}, {"powershell"}),
        (["subscriptions", "show", ""], set(), {"1"}),
    ],
)
def test_bash_completes(installed: dict[str, str], words: list[str], some: set[str], others: set[str]) -> None:
    """The printed script completes commands, options and their values; not ids, which would need a database."""
    installed["DATABASE_URL"] = "oracle+oracledb://user:password@192.0.2.1/?service_name=x"
    done = subprocess.run(
        [BASH, "--norc", "-c", ASK, "bash", "kafka-webhooks", *words],
        check=True,
        env=installed,
        capture_output=True,
        text=True,
        timeout=200,
    )
    registered, *found = done.stdout.splitlines()
    assert registered == "complete -o default -F _kafka_webhooks_completion kafka-webhooks"
    assert done.stderr == ""
    assert some <= set(found)
    assert not others & set(found)


@pytest.mark.parametrize(("shell", "registers"), [("zsh", "compdef "), ("fish", "complete --command kafka-webhooks")])
def test_the_other_shells_have_a_script(called: Command, shell: str, registers: str) -> None:
    """Each script calls the program with the same environment variable."""
    script = called("completion", shell).stdout
    assert registers in script
    assert "_KAFKA_WEBHOOKS_COMPLETE=complete_" in script


def test_an_answer_imports_no_database_and_no_kafka(installed: dict[str, str]) -> None:
    """A user waits for completion; it takes 0.1 s, and these imports would take most of it."""
    code = (
        "import sys, consumer.cli.app as app\n"
        "try: app.main([])\n"
        "except SystemExit: pass\n"
        "print(sorted({'sqlalchemy', 'confluent_kafka', 'consumer.config.settings'} & set(sys.modules)))"
    )
    asked = {"COMP_WORDS": "kafka-webhooks rep", "COMP_CWORD": "1", "_KAFKA_WEBHOOKS_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=installed | asked, capture_output=True, text=True
    )
    assert done.stdout.split() == ["replay", "[]"]
