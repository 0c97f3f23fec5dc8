"""The comparison's tables, pictures and page, from invented results."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.compare import __main__ as command
from benchmarks.compare import page, results, tables
from benchmarks.compare.pictures import BARS, LABELS, Bar, Group, draw, pictures, scale
from benchmarks.compare.programs import PROGRAMS, Program
from benchmarks.compare.results import Report, Result
from benchmarks.compare.scenarios import SCENARIOS, Scenario

OURS = Result("0ms", "worker", 256, 1, 250, 100_000, 16_512.4, 54.32, 159.6, 0, 0)
PEER = replace(OURS, program="vertx", per_second=13_300.0, repeated_after_kill=1234, p50_ms=1.234, p99_ms=12.0)
SVG = "{http://www.w3.org/2000/svg}"


def lines(table: str) -> list[list[str]]:
    """The cells of each row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.123, "0.12"), (5.4321, "5.43"), (54.321, "54.3"), (543.21, "543"), (16_512, "16,500")],
)
def test_figures_have_three_significant_digits(value: float, shown: str) -> None:
    """Figures have no more precision than a run."""
    assert tables.rounded(value) == shown


def test_a_table_has_the_columns_with_values() -> None:
    """Programs are in the order of their list, and a column that only one has is empty for the others."""
    head, _, first, second = lines(tables.table([PEER, OURS]))
    assert [first[0], second[0]] == ["this service, one worker", "Parallel Consumer, Vert.x"]
    assert dict(zip(head, second, strict=True))["after kill -9"] == "1,234"
    assert dict(zip(head, first, strict=True))["after kill -9"] == ""
    assert "p99, ms" in head
    assert "at, deliveries/s" not in head


def test_losses_are_marked() -> None:
    """Lost deliveries, wrong signatures and unfinished runs are bold, and fail the command."""
    assert results.failures([OURS, PEER]) == []
    for wrong, says in ((replace(OURS, lost=3), "**3**"), (replace(OURS, finished=False), "**given up**")):
        assert says in tables.table([wrong])
        assert len(results.failures([OURS, wrong])) == 1
    assert "†" in tables.table([replace(OURS, others=0.5)])


def test_the_longest_bar_of_a_group_is_full() -> None:
    """Each group has its own scale, labels are escaped, and each figure is behind its bar."""
    groups = [
        Group("a < b", [Bar("x & y", 10, "10", "ours"), Bar("z", 5, "5", "peer")]),
        Group("c", [Bar("x", 0, "0", "limit")]),
    ]
    tree = ET.fromstring(draw("<title>", groups))  # noqa: S314 (our own)
    bars = [each for each in tree.iter(f"{SVG}rect") if each.get("class") != "paper"]
    assert [float(each.get("width", "0")) for each in bars] == [BARS, BARS / 2, 1.0]
    figures = [each for each in tree.iter(f"{SVG}text") if each.get("class") == "figure"]
    assert [float(each.get("x", "0")) for each in figures] == [LABELS + BARS + 6, LABELS + BARS / 2 + 6, LABELS + 7]
    assert [each.text for each in tree.iter(f"{SVG}text") if each.get("class") == "group"] == ["a < b", "c"]


def test_a_bar_far_beyond_the_others_is_cut() -> None:
    """Otherwise the others would look alike. Two such bars are not cut."""
    assert scale([1000, 10, 5]) == 10
    assert scale([1000, 900, 5]) == 1000
    assert scale([7]) == 7
    assert scale([]) == scale([0.0]) == 1
    cut = draw("t", [Group("g", [Bar("a", 1000, "1,000", "peer"), Bar("b", 10, "10", "ours")])])
    assert cut.count('class="gap"') == 1
    assert cut.count(f'width="{BARS:.1f}"') == 2


def test_pictures_need_measured_figures() -> None:
    """No picture is drawn without figures."""
    drawn = pictures(Report({}, [OURS, PEER]))
    assert {"rate", "cpu", "memory", "repeated", "latency"} <= set(drawn)
    assert "1,234" not in drawn["rate"]
    assert set(pictures(Report({}, [OURS]))) == {"rate", "cpu", "memory", "bodies-tls"}


def test_new_results_replace_old_ones(tmp_path: Path) -> None:
    """Only results measured again are replaced, also in the file."""
    again = replace(PEER, per_second=1.0)
    report = results.merged(Report({"a": "old"}, [OURS, PEER]), Report({"a": "new"}, [again]))
    assert report == Report({"a": "new"}, [OURS, again])
    results.write(tmp_path / "folder" / "results.json", report)
    assert results.read(tmp_path / "folder" / "results.json") == report
    assert results.read(tmp_path / "none.json") == Report({})


def test_only_text_between_the_markers_changes() -> None:
    """A page keeps its prose; an unknown marker is an error."""
    text = "a\n<!-- results -->\nold\n<!-- end of results -->\nb\n"
    assert page.filled(text, {"results": "new\nlines"}) == text.replace("old", "new\nlines")
    empty = text.replace("old\n", "")
    assert page.filled(empty, {"results": "new\nlines"}) == page.filled(text, {"results": "new\nlines"})
    with pytest.raises(KeyError, match="machine"):
        page.filled(text, {"machine": "x"})


def test_the_selection_of_runs() -> None:
    """Peers have no fan-out, the quick run is short, and a name selects a scenario or a program."""
    everything = command.pairs([], quick=False)
    assert {program.name for scenario, program in everything if scenario.fan_out > 1} == {
        "worker",
        "workers-2",
        "compiled",
        "compiled-2",
        "tutorial",
    }
    assert {scenario.name for scenario, _ in command.pairs([], quick=True)} == {"0ms", "100ms"}
    assert [(scenario.name, program.name) for scenario, program in command.pairs(["tls", "threads"], quick=False)] == [
        ("tls", "threads")
    ]
    with pytest.raises(ValueError, match="nothing-of-ours"):
        command.pairs(["nothing-of-ours"], quick=False)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_run_is_bounded(scenario: Scenario, program: Program) -> None:
    """It is in events, in bytes on Kafka's disk, and in its expected seconds."""
    allowed = program.concurrency(scenario.concurrency) * program.processes
    events = scenario.events(program.per_second, allowed)
    assert 10 <= events <= 500_000
    assert events * scenario.pad < 1_000_000_000 or not program.from_kafka
    if scenario.delay_ms:
        assert events * scenario.fan_out * scenario.delay_ms / 1000 / allowed <= 2 * scenario.seconds


def test_subscriptions_have_urls_of_their_own() -> None:
    """They are spread over a hundred addresses, so that no limit of one address is measured."""
    urls = Scenario("s", "s", fan_out=1000).urls("http://127.0.0.1:9000")
    assert len(set(urls)) == 1000
    assert {url.split(":")[1] for url in urls} == {f"//127.0.0.{host}" for host in range(1, 101)}
