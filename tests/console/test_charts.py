"""Charts are SVG with a text that describes them, for any numbers."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from consumer.console.charts import HEIGHT, WIDTH, Bar, bars, line, share

SVG = st.lists(st.builds(Bar, st.integers(0, 10**9), st.integers(0, 10**9), st.text(max_size=9)), max_size=80)


def drawn(markup: str) -> ET.Element:
    """The drawing, parsed as a browser would."""
    return ET.fromstring(markup)  # noqa: S314 (our own markup)


def rects(markup: str, name: str) -> list[tuple[float, float, float, float]]:
    """Place and size of the drawing's rectangles of a class."""
    found = (each for each in drawn(markup).iter("rect") if each.get("class") == name)
    return [tuple(float(each.get(side, "nan")) for side in ("x", "y", "width", "height")) for each in found]  # type: ignore[misc]


def without_control(values: list[Bar]) -> list[Bar]:
    """Removes control characters, which XML lacks; labels are ours and have none."""
    return [each._replace(label="".join(filter(str.isprintable, each.label))) for each in values]


@given(SVG.map(without_control))
def test_each_interval_is_a_column_inside_the_drawing(values: list[Bar]) -> None:
    """A failure is always visible at the foot, and nothing exceeds the drawing."""
    drawing = bars(values, "attempts <by> minute")
    assert drawn(drawing).get("aria-label") == "attempts <by> minute"
    failed, succeeded = rects(drawing, "chart-failed"), rects(drawing, "chart-succeeded")
    assert len(failed) == sum(each.failed > 0 for each in values)
    for x, y, width, height in [*failed, *succeeded]:
        assert x >= 0
        assert x + width <= WIDTH + 0.02
        assert y >= -0.02
        assert y + height <= HEIGHT + 0.02
    assert all(height >= 1 and abs(y + height - HEIGHT) < 0.02 for _, y, _, height in failed)


@given(st.lists(st.floats(0, 1e9), max_size=80))
def test_a_line_stays_inside_the_drawing(values: list[float]) -> None:
    """This includes lines of one value, of none, and of zeros only."""
    found = drawn(line(values, "median")).find("polyline")
    points = [
        tuple(map(float, each.split(","))) for each in (found.get("points", "") if found is not None else "").split()
    ]
    assert len(points) == len(values)
    assert all(0 <= x <= WIDTH + 0.1 and 0 <= y <= HEIGHT for x, y in points)


@given(st.floats(-1, 2))
def test_a_share_is_filled_in_proportion(part: float) -> None:
    """It may be anything from none to all."""
    filled = sum(width for _, _, width, _ in rects(share(part, "done"), "chart-filled"))
    assert abs(filled - min(max(part, 0.0), 1.0) * WIDTH) < 0.01


def test_a_label_is_escaped() -> None:
    """A label or title that looks like markup is text."""
    drawing = bars([Bar(1, 1, "<script>")], '"><script>')
    assert "<script" not in drawing
