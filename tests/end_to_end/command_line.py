"""The command line of a deployment, in processes of its own."""

import json
import subprocess
from pathlib import Path

from tests.end_to_end.canaries import secrets_of
from tests.end_to_end.service_rig import Deployment
from tests.processes import PROGRAM, environment


class CommandLine:
    """`kafka-webhooks` beside the workers of a deployment, with their settings."""

    def __init__(self, deployment: Deployment, directory: Path) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.secrets: dict[str, str] = {}  # of the settings
        self._directory = directory
        self._deployment = deployment

    def start(self, *words: str, **variables: str) -> "subprocess.Popen[str]":
        """Starts a command."""
        settings = self._deployment.settings | variables
        self.secrets |= secrets_of(settings)
        process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._directory,
            env=environment(settings),
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **variables: str) -> tuple[int, str, str]:
        """Runs a command to its end: exit status, stdout, stderr."""
        return end_of(self.start(*words, **variables))

    def broken(self) -> dict[int, str]:
        """The states in `subscriptions list --broken`, by subscription."""
        _, shown, _ = self.run("subscriptions", "list", "--broken", "--json", WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8")
        return {each["id"]: each["state"] for each in json.loads(shown)}


def end_of(process: "subprocess.Popen[str]", within: float = 120.0) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a command."""
    output, errors = process.communicate(timeout=within)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors
