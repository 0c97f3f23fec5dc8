"""The command line of a deployment, in processes of its own."""

import subprocess
from pathlib import Path
from typing import Any

import requests

from tests.end_to_end.canaries import secrets_of
from tests.end_to_end.service_rig import Deployment
from tests.processes import PROGRAM, environment, free_port
from tests.waiting import eventually


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


class Api:
    """An API process and its client."""

    def __init__(self, commands: CommandLine, **variables: str) -> None:
        port = free_port()
        self.process = commands.start("api", API_PORT=str(port), **variables)
        self.url = f"http://127.0.0.1:{port}"
        eventually(lambda: is_up(self.url))

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
        """The answer to a request below /v1."""
        answer = requests.request(method, f"{self.url}/v1{path}", json=body, timeout=60)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


def is_up(url: str) -> bool:
    """Whether the API at this URL answers."""
    try:
        return requests.get(f"{url}/healthz", timeout=60).ok
    except requests.ConnectionError:
        return False


def end_of(process: "subprocess.Popen[str]", within: float = 120.0) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a command."""
    output, errors = process.communicate(timeout=within)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors
