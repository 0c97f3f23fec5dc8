"""What commands share: times and ids as people write them, and what is shown of what others sent."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator

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
    until_signal,
)

NOW = 1_785_254_400.0  # 2026-07-28T16:00Z
HOUR = 3600.0


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2026-07-28T14:00", NOW - 2 * HOUR),
        ("2026-07-28T14:00Z", NOW - 2 * HOUR),
        ("2026-07-28 14:00:00.5", NOW - 2 * HOUR + 0.5),
        ("2026-07-28T14:00+02:00", NOW - 4 * HOUR),
        ("2026-07-28", NOW - 16 * HOUR),
        ("2h", NOW - 2 * HOUR),
        ("1.5h", NOW - 1.5 * HOUR),
        ("3d", NOW - 72 * HOUR),
        ("90m", NOW - 1.5 * HOUR),
        ("30s", NOW - 30),
        ("250ms", NOW - 0.25),
        ("99999999999d", 0.0),
        ("0001-01-01", 0.0),
    ],
)
def test_times_and_ages(text: str, means: float) -> None:
    """ISO 8601, UTC where no zone is named, or an age; what is before the first record there can be is all there is."""
    assert moment(text, NOW, "--since") == pytest.approx(means, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "now", "yesterday", "14:00", "120", "1785254400", "-2h", "2 h", "1h30m", "2H", "..h", "2026-02-30", "\uff12h"],
)
def test_what_is_no_time(text: str) -> None:
    """A bare number too: nobody can tell seconds, years and unix times apart. The line shows what would do."""
    with pytest.raises(typer.BadParameter, match=r"neither a time such as .* nor an age such as 2h"):
        moment(text, NOW, "--since")


@given(st.text(max_size=30))
def test_no_text_breaks_a_time(text: str) -> None:
    """It is a moment or a usage error."""
    with contextlib.suppress(typer.BadParameter):
        assert moment(text, NOW, "--since") >= 0


@given(st.integers(1 - 10**18, 10**18 - 1))
def test_ids_are_numbers(number: int) -> None:
    """Any that a row can have: plain SQL may have made up one below zero."""
    assert row_id(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "-", "--1", "+1", "1.0", " 1", "1e3", "x", "٣", "9223372036854775808", "9" * 5000]
)
def test_what_is_no_id(text: str) -> None:
    """What no row can have is a usage error, not one of the database's."""
    with pytest.raises(typer.BadParameter, match="a whole number such as 7"):
        row_id(text)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("X-A: b", ("X-A", "b")),
        ("X-A:b", ("X-A", "b")),
        ("X-A=b", ("X-A", "b")),
        ("X-A: b=c", ("X-A", "b=c")),
        ("X-A=b: c", ("X-A", "b: c")),
        ("X-A = b ", ("X-A", " b ")),
        ("X-A :  b ", ("X-A", "b")),
        ("traceparent=00-a=b", ("traceparent", "00-a=b")),
        ("X-A=", ("X-A", "")),
        ("X-A:", ("X-A", "")),
    ],
)
def test_a_header_is_written_in_two_ways(text: str, means: tuple[str, str]) -> None:
    """The first of both signs divides it; behind `=` the value is as it is."""
    assert header(text, "--header") == means


@pytest.mark.parametrize("text", ["", "hidden", ": hidden", "=hidden", " =hidden"])
def test_what_is_no_header(text: str) -> None:
    """The line shows what would do, and not what was given: it may be a secret."""
    with pytest.raises(typer.BadParameter, match=r"^write 'NAME: VALUE'$"):
        header(text, "--header")


def test_rows_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned, with a dash for what is not there, and nothing in them that a terminal would obey."""
    print_rows(("id", "error"), [{"id": 1, "error": None}, {"id": 1234, "error": "\x1b[2Jno"}])
    assert capsys.readouterr().out.splitlines() == ["id    error", "1     -", "1234  \\x1b[2Jno"]


def test_a_long_list_begins_before_it_is_known_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page at a time, wider from where something wider stands; an array is one document all the same."""
    monkeypatch.setattr(console, "PAGE", 2)
    printed = []

    def rows() -> Iterator[dict[str, object]]:
        for row in (1, 2, 1000, 3):
            if row == 1000:
                printed.append(capsys.readouterr().out.splitlines())
            yield {"id": row, "error": "e"}

    assert print_rows(("id", "error"), rows()) == 4
    printed.append(capsys.readouterr().out.splitlines())
    assert printed == [["id  error", "1   e", "2   e"], ["1000  e", "3     e"]]
    assert print_rows(("id", "error"), ()) == 0
    assert capsys.readouterr().out == ""
    for values in ([], [{"a": {"ü": [1, None]}}], [1, "x\ny", []]):
        print_json_rows(iter(values))
        assert capsys.readouterr().out == json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def test_texts_are_made_fit_to_be_shown() -> None:
    """Letters of any alphabet stay; control characters and marks that turn the line around do not."""
    assert printable("Jané 名\r\n\u202e") == "Jané 名\\r\\n\\u202e"
    assert (shortened("abc", 3), shortened("abcd", 3)) == ("abc", "ab…")
    assert (number(1, "delivery"), number(2000, "delivery"), number(0, "record")) == (
        "1 delivery",
        "2,000 deliveries",
        "0 records",
    )


def test_a_signal_ends_work_behind_the_batch_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    """With status 0 and a word of the rest; what is set for the signal is set again."""
    before = signal.getsignal(signal.SIGINT)
    done = []

    def work() -> None:
        for batch in until_signal(iter(range(5)), "the rest is as it was"):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(batch)

    with pytest.raises(typer.Exit) as ended:
        work()
    assert (done, ended.value.exit_code) == ([0, 1, 2], 0)
    assert capsys.readouterr().err == "stopped; the rest is as it was\n"
    assert signal.getsignal(signal.SIGINT) is before
