"""Functions shared by commands: parsing times and ids, and showing text of others safely."""

import contextlib
import json
import os
import signal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from consumer.cli import console
from consumer.cli.console import (
    header,
    moment,
    number,
    print_json_rows,
    print_rows,
    printable,
    row_id,
    shortened,
)
from consumer.cli.progress import until_signal

NOW = 1_785_254_400.0  # 2026-07-28T16:00Z
HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2026-07-28T14:00", NOW - 2 * HOUR),
        ("2026-07-28T14:00Z", NOW - 2 * HOUR),
        ("2026-07-28T14:00+02:00", NOW - 4 * HOUR),
        ("2026-07-28", NOW - 16 * HOUR),
        ("2h", NOW - 2 * HOUR),
        ("250ms", NOW - 0.25),
        ("99999999999d", 0.0),
        ("0001-01-01", 0.0),
    ],
)
def test_times_and_ages(text: str, means: float) -> None:
    """A time is ISO 8601, UTC by default, or an age. Times before the first possible record mean all records."""
    assert moment(text, NOW, "--since") == pytest.approx(means, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "14:00", "120", "1785254400", "-2h", "2 h", "1h30m", "2H", "..h", "2026-02-30", "\uff12h"],
)
def test_invalid_times_are_refused(text: str) -> None:
    """A bare number is refused too: it may be seconds, a year or a unix time. The error shows a valid value."""
    with pytest.raises(typer.BadParameter, match=r"neither a time such as .* nor an age such as 2h"):
        moment(text, NOW, "--since")


@given(st.text(max_size=30))
def test_no_text_breaks_a_time(text: str) -> None:
    """Any text is a time or a usage error."""
    with contextlib.suppress(typer.BadParameter):
        assert moment(text, NOW, "--since") >= 0


@pytest.mark.parametrize("text", ["", "-", "--1", "+1", "1.0", " 1", "1e3", "٣", "9223372036854775808", "9" * 5000])
def test_invalid_ids_are_refused(text: str) -> None:
    """An id that no row can have is a usage error, not a database error. It may be negative: plain SQL can set it."""
    assert row_id(str(-(10**17))) == -(10**17)
    with pytest.raises(typer.BadParameter, match="a whole number such as 7"):
        row_id(text)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("X-A: b", ("X-A", "b")),
        ("X-A: b=c", ("X-A", "b=c")),
        ("X-A=b: c", ("X-A", "b: c")),
        ("X-A = b ", ("X-A", " b ")),
        ("X-A:", ("X-A", "")),
    ],
)
def test_a_header_is_written_in_two_ways(text: str, means: tuple[str, str]) -> None:
    """The first `:` or `=` separates the name; behind `=` the value is unchanged."""
    assert header(text, "--header") == means


@pytest.mark.parametrize("text", ["", "hidden", ": hidden", "=hidden", " =hidden"])
def test_invalid_headers_are_refused(text: str) -> None:
    """The error shows a valid header, and not the given text, which may be a secret."""
    with pytest.raises(typer.BadParameter, match=r"^write 'NAME: VALUE'$"):
        header(text, "--header")


def test_a_list_is_printed_page_by_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are aligned and widen from the page that has a longer value on; a missing value is a dash.

    No value can control the terminal. A JSON array is one document all the same.
    """
    monkeypatch.setattr(console, "PAGE", 2)
    assert print_rows(("id", "error"), ({"id": row, "error": None} for row in (1, 2, "\x1b[2J", 3))) == 4
    assert capsys.readouterr().out.splitlines() == ["id  error", "1   -", "2   -", "\\x1b[2J  -", "3        -"]
    assert print_rows(("id", "error"), ()) == 0
    assert capsys.readouterr().out == ""
    for values in ([], [{"a": {"ü": [1, None]}}], [1, "x\ny", []]):
        print_json_rows(iter(values))
        assert capsys.readouterr().out == json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def test_text_is_made_printable() -> None:
    """Letters of any alphabet stay; control characters and marks of text direction are removed."""
    assert printable("Jané 名\r\n\u202e") == "Jané 名\\r\\n\\u202e"
    assert (shortened("abc", 3), shortened("abcd", 3)) == ("abc", "ab…")
    assert [number(1, "delivery"), number(2000, "delivery")] == ["1 delivery", "2,000 deliveries"]


def test_a_signal_ends_work_after_the_present_batch(capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0 and a line reports the rest; the previous signal handler is restored."""
    before = signal.getsignal(signal.SIGINT)
    done = []

    def work() -> None:
        for batch in until_signal(iter(range(5)), "the rest is unchanged"):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(batch)

    with pytest.raises(typer.Exit) as ended:
        work()
    assert (done, ended.value.exit_code) == ([0, 1, 2], 0)
    assert capsys.readouterr().err == "stopped; the rest is unchanged\n"
    assert signal.getsignal(signal.SIGINT) is before
