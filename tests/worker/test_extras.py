"""Extras: without their setting none of their packages is imported; with it, a missing one is an error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, environment

# Protobuf and attrs are not among these: CEL's package imports the one, rich the other if it is there.
PACKAGES = ("authlib", "cachetools", "fastavro", "httpx", "httpx2", "confluent_kafka.schema_registry", "opentelemetry")
IMPORTED = f"""
import json, sys
import consumer.worker.service, consumer.ops.check, consumer.ops.replay_request
print(json.dumps([name for name in sys.modules if name.startswith({PACKAGES!r})]))
"""


def test_without_their_settings_none_is_imported() -> None:
    """Neither by a worker nor by commands."""
    ran = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, check=True, timeout=200)
    assert json.loads(ran.stdout) == []


REGISTRY, COLLECTOR = "SCHEMA_REGISTRY_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("package", "extra", "variables"),
    [
        ("fastavro", "schemas", {REGISTRY: "http://127.0.0.1:1"}),
        ("opentelemetry", "otel", {COLLECTOR: "http://127.0.0.1:4318"}),
        ("opentelemetry", None, {}),
        ("opentelemetry", None, {COLLECTOR: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}),
    ],
)
def test_a_setting_without_its_extra_is_an_error(
    tmp_path: Path, package: str, extra: str | None, variables: dict[str, str]
) -> None:
    """The exit status is 2, and the message says how to install it. While traces are off, nothing is needed."""
    code = f"import sys; sys.modules[{package!r}] = None\nfrom consumer.cli.app import main; sys.exit(main(['run']))"
    command, run_with = [sys.executable, "-c", code], environment(variables)
    ran = subprocess.run(command, cwd=tmp_path, env=run_with, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 2
    if extra is None:
        assert "otel" not in ran.stderr
    else:
        assert f'pip install ".[{extra}]"' in ran.stderr
