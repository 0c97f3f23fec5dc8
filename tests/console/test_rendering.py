"""Formatting numbers, shares and times for people."""

from xml.etree import ElementTree as ET

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from consumer.cli.console import time_text
from consumer.console.rendering import (
    STATIC,
    ago,
    environment,
    iso,
    number,
    percent,
    pretty,
    seconds,
    span,
    static_names,
)
from consumer.events.cloud_event import rfc3339
from consumer.ops.attempts import Minute


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.5, "50.0 %"), (0.98765, "98.8 %"), (0.999999, "99.99 %"), (1e-9, "0.01 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    """100 % means that nothing failed, and 0 % that nothing succeeded."""
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0431, "43 ms"), (1.25, "1.2 s"), (59.96, "60.0 s"), (90, "2 min"), (7200, "2 h"), (90000, "1 d")],
)
def test_a_duration_has_a_fitting_unit(value: float, text: str) -> None:
    """It is in milliseconds below a second, then in seconds, then in the largest unit."""
    assert seconds(value) == text


@pytest.mark.parametrize(("at", "text"), [(100.4, "now"), (40, "1 min ago"), (7300, "in 2 h"), (58, "42 s ago")])
def test_a_time_is_relative_to_now(at: float, text: str) -> None:
    """It may be past or future."""
    assert ago(at, 100.0) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [(1_764_000_000.9, "2025-11-24T16:00:00Z"), (1e300, "1970-01-01T00:00:00Z"), (-0.001, "1970-01-01T00:00:00Z")],
)
def test_any_timestamp_has_a_text(at: float, text: str) -> None:
    """Producers set the timestamps of records. A time outside the calendar is shown as the epoch, as events have it."""
    assert iso(at) == time_text(at) == text
    assert rfc3339(at)[:19] == text[:19]


def test_numbers_have_their_thousands_separated() -> None:
    """They have no fraction."""
    assert (number(1234567), span(86400 * 3)) == ("1,234,567", "3 d")


def test_a_page_links_each_file_by_its_content() -> None:
    """A changed file gets another name, so browsers may cache it for good. The licence of each is listed."""
    page = environment("/console").from_string("{{ static('console.css') }}").render()
    assert page == f"/console/static/{static_names()['console.css']}"
    licences = (STATIC / "README.md").read_text()
    assert all(f"`{name}`" in licences for name in static_names())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"a":[1,2.50],"b":"\xc3\xa4"}', '{\n  "a": [\n    1,\n    2.5\n  ],\n  "b": "ä"\n}'),
        (b'"\\ud800"', '"\\ud800"'),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b"no JSON", None),
        (b"\xff", None),
        (b"[" * 60_000, None),
        (b"[" * 800 + b"1," * 2_000 + b"1" + b"]" * 800, None),
    ],
)
def test_json_is_written_over_several_lines(value: bytes, shown: str | None) -> None:
    """Other bytes are not, nor is JSON that its levels would make much longer: producers choose it."""
    assert pretty(value) == shown


def test_values_are_escaped_and_a_missing_one_is_an_error() -> None:
    """A tenant's text is never markup, and an unknown value in a template fails in tests."""
    templates = environment("")
    assert templates.from_string("{{ it }}").render(it="<b>") == Markup("&lt;b&gt;")
    with pytest.raises(UndefinedError):
        templates.from_string("{{ it }}").render()


@pytest.mark.parametrize("minutes", [[], [Minute(0, 0, 0)], [Minute(0, 9999, 1), Minute(60, 0, 0), Minute(120, 5, 0)]])
def test_a_failed_attempt_is_always_visible_in_a_chart(minutes: list[Minute]) -> None:
    """Each minute is a column inside the drawing, with its failures at the bottom, at least one unit high."""
    source = '{% from "parts.html" import bars with context %}{{ bars(minutes) }}'
    drawing = ET.fromstring(environment("").from_string(source).render(minutes=minutes))  # noqa: S314 (our own markup)
    for each, column in zip(filter(lambda each: each.ok or each.failed, minutes), drawing.iter("g"), strict=True):
        _, ok, failed = (
            (float(rect.get("x", "0")), float(rect.get("y", "0")), float(rect.get("height", "0")))
            for rect in column.iter("rect")
        )
        assert ok[0] == failed[0] == each.at / 60
        assert (failed[2] >= 1) == (each.failed > 0)
        assert 0 <= ok[1] <= 48
        assert ok[1] + ok[2] == pytest.approx(failed[1])
        assert failed[1] + failed[2] == pytest.approx(48)
