"""The comparison's tables, pictures and page, from invented results."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare import __main__ as command
from benchmarks.compare import page, results, tables
from benchmarks.compare.results import Report, Result

OURS = Result("0ms", "worker", 256, 1, 250, 100_000, 16_512.4, 54.32, 159.6, 0, 0)
PEER = replace(OURS, program="vertx", per_second=13_300.0, repeated_after_kill=1234, p50_ms=1.234, p99_ms=12.0)


def lines(table: str) -> list[list[str]]:
    """The cells of each row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_table_has_the_columns_with_values() -> None:
    """Programs are in the order of their list, and a column that only one has is empty for the others."""
    head, _, first, second = lines(tables.table([PEER, OURS]))
    assert [first[0], second[0]] == ["this service, one worker", "Parallel Consumer, Vert.x"]
    assert dict(zip(head, second, strict=True))["after kill -9"] == "1,234"
    assert dict(zip(head, first, strict=True))["after kill -9"] == ""
    assert "p99, ms" in head
    assert not {"lost", "repeated"} & set(head)


def test_other_scenarios_share_a_table() -> None:
    """It has the rate and the CPU of each program, and marks losses."""
    report = Report({}, [OURS, replace(OURS, scenario="tls"), replace(PEER, scenario="4KB", lost=3)])
    head, _, first, second = lines(tables.tables(report).partition("### Bodies, subscriptions, TLS\n\n")[2])
    assert head == ["", "4 KB bodies", "TLS"]
    assert first == ["this service, one worker", "", "16,500 (54.3)"]
    assert second == ["Parallel Consumer, Vert.x", "13,300 (54.3), lost **3**", ""]


def test_losses_are_marked() -> None:
    """Lost deliveries, wrong signatures and unfinished runs are bold, and fail the command."""
    assert results.failures([OURS, PEER]) == []
    for wrong, says in ((replace(OURS, lost=3), "**3**"), (replace(OURS, finished=False), "**given up**")):
        assert says in tables.table([wrong])
        assert len(results.failures([OURS, wrong])) == 1
    assert "†" in tables.table([replace(OURS, others=0.5)])


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
