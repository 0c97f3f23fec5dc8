"""The tutorial, run unchanged, with a Kafka in memory."""

from pathlib import Path

import pytest

from tests.docs.walkthrough import run_page
from tests.processes import free_port


@pytest.mark.timeout(1_000)  # many programs, one after the other
def test_it_runs_as_written(tmp_path: Path) -> None:
    """Each command works, and each line that the tutorial shows is printed."""
    ports = {"8000": str(free_port()), "8080": str(free_port())}
    variables = {"API_PORT": ports["8080"], "OPS_PORT": "0"}
    run_page("docs/tutorial.md", tmp_path, ports, variables, after="## 2. Start")
