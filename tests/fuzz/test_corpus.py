"""The corpus of the fuzz targets, and inputs near it, break no guarantee. `make fuzz` searches for longer."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(each for each in CORPUS.rglob("*") if each.is_file())
KEPT = {target: [each.read_bytes() for each in FILES if each.parent.name == target] for target in TARGETS}
WORDS = [
    line[1:-1].encode().decode("unicode_escape").encode("latin-1")
    for line in CORPUS.with_name("words.dict").read_text().splitlines()
]


@st.composite
def near(draw: st.DrawFn, kept: list[bytes]) -> bytes:
    """An input of the corpus with some changes: bytes replaced, removed or inserted, or parts of another input."""
    text = draw(st.sampled_from(kept))
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        other = draw(st.sampled_from(kept))
        start = draw(st.integers(0, len(other)))
        more = draw(st.binary(max_size=3) | st.sampled_from(WORDS) | st.just(other[start : start + 40]))
        text = text[:at] + more + text[at + size :]
    return text


@pytest.mark.parametrize("target", TARGETS)
def test_each_kept_input_passes(target: str) -> None:
    """Inputs that failed once have a descriptive name."""
    assert KEPT[target], target
    for path in FILES:
        if path.parent.name == target:
            try:
                TARGETS[target](path.read_bytes())
            except Exception as error:
                error.add_note(f"the input is {path}")
                raise


@pytest.mark.parametrize("target", TARGETS)
@given(st.data())
def test_inputs_near_the_corpus_pass(target: str, data: st.DataObject) -> None:
    """Hypothesis also generates some from scratch."""
    TARGETS[target](data.draw(near(KEPT[target]) | st.binary(max_size=60)))


def test_the_corpus_stays_small() -> None:
    """It has a few kilobytes for each target: only selected inputs of a search are kept."""
    assert sum(each.stat().st_size for each in FILES) < 300_000
    assert {each.parent.name for each in FILES} == set(TARGETS)
