"""Reading schemas is an extra: without a registry none of its packages is imported."""

import json
import subprocess
import sys

from tests.processes import ROOT, environment

# Protobuf and attrs are not among these: CEL's package imports the one, rich the other if it is there.
EXTRA = ("authlib", "cachetools", "fastavro", "httpx", "httpx2", "confluent_kafka.schema_registry")
LIST = f"""
import json, sys
print(json.dumps([name for name in sys.modules if name.startswith({EXTRA!r})]))
"""


def test_without_a_registry_its_packages_are_not_imported() -> None:
    """Neither by a worker nor by commands."""
    code = f"import consumer.worker.service, consumer.ops.check, consumer.ops.replay\n{LIST}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=200)
    assert json.loads(ran.stdout) == []


def test_a_registry_without_the_extra_is_a_settings_error() -> None:
    """The exit status is 2, and the message says how to install it."""
    code = "import sys; sys.modules['fastavro'] = None\nfrom consumer.cli.app import main; sys.exit(main(['run']))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment({"SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 2
    assert 'pip install "kafka-webhooks[schemas]"' in ran.stderr
