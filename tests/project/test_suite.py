"""`make test` and `make test-rest` together run each test once, and report missing requirements."""

import inspect
import shlex
import subprocess
import sys
from collections import Counter

import pytest

from consumer.config.settings import known_names
from tests import conftest
from tests.processes import ROOT, environment, is_setting
from tests.selection import FIXTURES

NOTHING_MORE = ("--collect-only", "-q", "-n0", "-p", "no:tests.golden.golden_check")


def collected(*words: str) -> list[str]:
    """The ids of the tests that pytest would run."""
    return [line for line in output(sys.executable, "-m", "pytest", *words, *NOTHING_MORE) if "::" in line]


def chosen(target: str) -> list[str]:
    """The ids of the tests of a Makefile target, from the last command that it would run."""
    return shlex.split(output("make", "--dry-run", target)[-1])[3:]


def output(*words: str) -> list[str]:
    """The output of a command, without the settings of the pytest or make around it."""
    return subprocess.run(
        words, cwd=ROOT, env=environment({}), capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.slow
def test_each_test_is_in_one_of_the_two_runs() -> None:
    """No test is in neither or in both. Those of a million subscriptions and of chaos are in the second."""
    everything = collected("-m", "not chaos")
    quick, rest = (collected(*chosen(target)) for target in ("test", "test-rest"))
    assert len(everything) > 1000
    assert Counter(quick + rest) == Counter(everything)
    assert any(each.startswith("tests/end_to_end/") for each in quick)
    assert any(each.startswith("tests/ledger/") and "19c" in each for each in quick)
    assert all(each in rest for each in everything if each.startswith("tests/chaos/"))


def test_each_fixture_that_starts_a_kafka_has_a_marker() -> None:
    """A broker takes java and seconds, so its tests are not among the quick ones."""
    own = {name: each for name, each in vars(conftest).items() if getattr(each, "__module__", "") == conftest.__name__}
    starting = {name for name, each in own.items() if "or_skip(" in inspect.getsource(each)}
    assert "three_nodes" in starting
    assert starting <= FIXTURES.keys()


def test_no_setting_of_the_shell_reaches_a_test() -> None:
    """conftest.py removes them from the environment, so that no test writes to the cluster that they name."""
    assert all(map(is_setting, known_names()))
    assert is_setting("KAFKA_SASL_PASSWORD")
    assert not is_setting("KAFKA_TEST_BOOTSTRAP_SERVERS")
