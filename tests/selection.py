"""The selection of tests for `make test`: the quick ones, and a few that run the real parts.

Markers state the cost of a test (`slow`) and its needs (`kafka`, `oracle`). They follow from folders and fixtures, so
that no test declares them. `smoke` tests run in `make test` despite their needs. The Makefile has the expressions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kafka_broker import HAS_KIP_848

TESTS = Path(__file__).parent

# Beginnings of node ids, from `tests/` on.
FOLDERS = {
    "chaos/": "slow",
    "membership/": "slow",
    "deploy/test_api_server.py": "chaos",
    "end_to_end/": "slow",
    "end_to_end/test_": "compiled",
    "cli/test_command.py::test_version_needs_no_heavy_imports": "compiled",
    # They replace a method of Lanes, which compiled code calls without a look-up.
    "worker/test_handover.py::test_a_large_rest_of_a_fan_out_is_stored_as_the_database_takes_it": "interpreted",
    "delivery/test_recall.py::test_the_room_of_a_subscription_is_computed_once_in_a_look": "interpreted",
    # It replaces what makes a request, and the clock of the processor's time.
    "delivery/test_sender.py::test_a_subscription_gets_no_more_time_than_its_budget": "interpreted",
    "cli/test_command.py::test_output_that_cannot_be_written_is_1": "slow",
    "matching/test_lookup_scale.py": "slow",
    "ops/test_overview_scale.py": "slow",
    "worker/test_worker_states.py": "slow",
    "api/test_v1_fuzz.py": "slow",
    "api/test_generated_client.py": "slow",
    "docs/test_tutorial.py": "slow",
    "ledger/test_due.py": "smoke",
    "end_to_end/test_calm_delivery.py::test_two_thousand_events_reach_each_subscription_once[sqlite]": "smoke",
}
# Fixtures that start a server, or a program in its own process. Helm is built the first time.
FIXTURES = {
    "command": "slow",
    "start": "slow",
    "terminal": "slow",
    "demo_folder": "slow",
    "checker": "slow",
    "helm": "slow",
    "apicurio": "slow",
    "kafka_cluster": "kafka",
    "one_node": "kafka",
    "three_nodes": "kafka",
    "secured": "kafka",
    "emulated_oracles": "oracle",
    "start_oracle": "oracle",
}


def mark(item: pytest.Item) -> None:
    """Give a test its markers. A test that requests a server by `getfixturevalue` has its marker on the parameter."""
    place = item.nodeid.removeprefix("tests/")
    markers = [marker for folder, marker in FOLDERS.items() if place.startswith(folder)]
    markers += [FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES]
    for marker in dict.fromkeys(markers):
        item.add_marker(marker)
    protocols = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if not HAS_KIP_848 and item.get_closest_marker("kafka") and ("KIP-848" in place or "consumer" in protocols):
        item.add_marker(pytest.mark.skip("Kafka has KIP-848 from 4.0 on"))


class LeftOut:
    """Counts the tests that `-m` leaves out, in each process of pytest-xdist, and reports the number in the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._number = 0

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._number += len(items)

    def pytest_sessionfinish(self) -> None:
        """A pytest-xdist worker reports its number to the process that started it."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left_out"] = self._number

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """All workers collect the same tests, so one number is enough."""
        self._number = getattr(node, "workeroutput", {}).get("left_out", self._number)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._number and self._config.getoption("markexpr"):
            terminalreporter.write_line(
                f"{self._number} tests were left out (long ones, and those on a real Kafka or an Oracle): "
                "`make test-all` runs all of them."
            )
