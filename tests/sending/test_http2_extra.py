"""HTTP/2 is an extra: without a subscription that asks for it none of its packages is imported."""

import json
import subprocess
import sys

from tests.processes import ROOT

LIST = "import json, sys; print(json.dumps([name for name in sys.modules if name in ('h2', 'hpack', 'hyperframe')]))"


def test_without_http2_its_packages_are_not_imported() -> None:
    """Neither by a worker nor by commands."""
    code = f"import consumer.worker.service, consumer.ops.check, consumer.ops.ping\n{LIST}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=200)
    assert json.loads(ran.stdout) == []
