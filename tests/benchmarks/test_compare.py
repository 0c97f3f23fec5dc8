"""The comparison's tables, pictures and page, from invented results."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare import aims, page, results, tables
from benchmarks.compare.results import Report, Result
from benchmarks.compare.run import Places, apart

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


def test_several_rounds_are_one_line() -> None:
    """The medians of what was measured, and the worst of what must not happen."""
    fast, slow = (replace(OURS, round=number, per_second=rate) for number, rate in ((2, 20_000.0), (3, 9_000.0)))
    (found,) = results.Report({}, [OURS, fast, replace(slow, repeated=7, finished=False)]).of("0ms")
    assert (found.per_second, found.repeated, found.finished, found.p99_ms) == (16_512.4, 7, False, None)
    (found,) = results.Report({}, [OURS, replace(OURS, round=2, most_open=253)]).of("0ms")
    assert repr(found.most_open) == "251", "a count stays one between two rounds"
    assert len(results.merged(Report({}, [OURS]), Report({}, [fast])).results) == 2


def test_an_aim_is_a_ratio_within_one_round() -> None:
    """Not of medians: a slow round slows down both programs. The median of the ratios reaches the aim, or does not."""
    ours = [replace(OURS, round=number, cpu_us=cpu) for number, cpu in enumerate((40.0, 80.0, 36.0))]
    peers = [
        replace(PEER, round=number, cpu_us=cpu, per_second=16_512.4) for number, cpu in enumerate((100.0, 200.0, 60.0))
    ]
    head, _, cpu, rate, *_ = lines(aims.table(Report({}, [*ours, *peers])))
    place = head.index("Receiver that answers at once")
    assert cpu[place] == "0.40 (0.40 to 0.60), reached"
    assert rate[place] == "**1.00 (1.00 to 1.00), missed**"


def test_processors_are_shared_out() -> None:
    """Each processor goes to one part, and a machine with too few is refused."""
    assert apart(range(8)) == Places(range(4), range(4, 6), range(6, 8))
    with pytest.raises(ValueError, match="four or more; this machine has 2"):
        apart(range(2))


def test_only_text_between_the_markers_changes() -> None:
    """A page keeps its prose; an unknown marker is an error."""
    text = "a\n<!-- results -->\nold\n<!-- end of results -->\nb\n"
    assert page.filled(text, {"results": "new\nlines"}) == text.replace("old", "new\nlines")
    empty = text.replace("old\n", "")
    assert page.filled(empty, {"results": "new\nlines"}) == page.filled(text, {"results": "new\nlines"})
    with pytest.raises(KeyError, match="machine"):
        page.filled(text, {"machine": "x"})
