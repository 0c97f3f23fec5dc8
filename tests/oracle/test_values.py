"""Encoding of values and messages on the wire: each is read back unchanged."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle_emulator import values
from tests.oracle_emulator.rewriting import for_h2
from tests.oracle_emulator.tokens import text_of, tokens_of
from tests.oracle_emulator.wire import Reader, Writer

DECIMALS = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**28) + 1, 10**28 - 1),  # as many digits as Python's decimal arithmetic keeps
    st.integers(-60, 60),
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def nothing_more() -> bytes:
    raise EOFError


@given(DECIMALS)
def test_numbers(number: Decimal) -> None:
    """Numbers are exact, wherever the decimal point is."""
    assert values.decode_number(values.encode_number(number)) == number


@pytest.mark.parametrize(
    ("number", "image"),
    [(0, "80"), (1, "c102"), (-1, "3e6466"), (100, "c202"), (123, "c20218"), (-123, "3d644e66"), (0.5, "c033")],
)
def test_numbers_look_as_oracle_documents_them(number: float, image: str) -> None:
    """They equal the output of DUMP(x, 16)."""
    assert values.encode_number(number).hex() == image


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS))  # noqa: DTZ001 (Hypothesis wants them so)
def test_instants(moment: datetime) -> None:
    """A time with a zone is kept; TIMESTAMP keeps the fields, DATE whole seconds."""
    assert values.decode_datetime(values.encode_datetime(moment, values.TIMESTAMP_TZ)) == moment
    plain = moment.replace(tzinfo=None)
    assert values.decode_datetime(values.encode_datetime(plain, values.TIMESTAMP)) == plain
    assert values.decode_datetime(values.encode_datetime(plain, values.DATE)) == plain.replace(microsecond=0)


@given(st.lists(st.one_of(st.integers(-(2**60), 2**60), st.binary(max_size=70_000))))
def test_messages(parts: list[int | bytes]) -> None:
    """Values written in sequence are read in that sequence, however they are split into packets."""
    writer = Writer()
    for part in parts:
        _ = writer.number(part) if isinstance(part, int) else writer.counted(part)
    packets = iter([bytes(writer[start : start + 1000]) for start in range(0, len(writer), 1000)])
    reader = Reader(b"", lambda: next(packets))
    read: list[Callable[[], object]] = [reader.number if isinstance(part, int) else reader.counted for part in parts]
    assert [each() for each in read] == parts
    assert reader.at_end()


def test_a_message_that_is_too_short_is_noticed() -> None:
    """The function that fetches the next packet raises."""
    with pytest.raises(EOFError):
        Reader(b"\x02\x01", nothing_more).number()


@given(st.text(alphabet="ab'\"/*-:= \n12", max_size=60))
def test_tokens_lose_nothing(sql: str) -> None:
    """Any text is the concatenation of its tokens."""
    assert text_of(tokens_of(sql)) == sql


@pytest.mark.parametrize(
    ("oracle", "h2"),
    [
        ('SELECT :a, \':b\', "c:d" FROM t WHERE e = :"f" -- :g', "SELECT ?, ':b', \"c:d\" FROM t WHERE e = ? -- :g"),
        ("SELECT a / b FROM t", "SELECT a * CAST(1 AS DECFLOAT(40)) / b FROM t"),
        ("SELECT DBTIMEZONE FROM dual", "SELECT '+00:00' FROM dual"),
    ],
)
def test_rewriting(oracle: str, h2: str) -> None:
    """Binds become question marks, except in strings, names and comments."""
    assert for_h2(tokens_of(oracle)) == h2


def test_a_datetime_keeps_its_time() -> None:
    """A datetime is a date with a time, though a subclass of date."""
    assert values.encode(datetime(2026, 1, 2, tzinfo=UTC), values.DATE).hex() == "787e0102010101"
