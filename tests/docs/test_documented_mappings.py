"""docs/mappings.md against the code: the keys, the examples, the limits."""

import re

from consumer.expressions.expression import LONGEST
from consumer.intake import mapping, mapping_file
from consumer.intake.mapping import Fields
from consumer.intake.mapping_file import parse
from tests.docs.documentation import BLOCKS, ROOT, TEXTS, code, rows

PAGE = "docs/mappings.md"


def test_keys() -> None:
    """All keys, and no others, are documented."""
    assert {code(row[0])[0] for row in rows(PAGE, "The keys")} == set(Fields.model_fields)


def test_the_block() -> None:
    """The first mapping is a valid file."""
    (block,) = [block.text for block in BLOCKS if block.page == PAGE and block.info == "toml"]
    assert parse(block, PAGE).patterns == ("shop.orders", "billing.*")


def test_examples() -> None:
    """Each file is on the page and has a test of its own."""
    there = {path.name for path in (ROOT / "docs/mappings").iterdir()}
    assert set(re.findall(r"\(mappings/([\w.-]+)\)", TEXTS[PAGE])) == there
    tests = (ROOT / "tests/intake/test_mapping_examples.py").read_text()
    assert all(f'made("{name.removesuffix(".toml")}", ' in tests for name in there)


def test_limits() -> None:
    """Each number is that of the code."""
    text = TEXTS[PAGE].partition("## Limits")[2]
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*", text)]
    assert numbers == [
        mapping_file.MOST_BYTES // 1024,
        mapping_file.MOST_MAPPINGS,
        mapping.MOST_TOPICS,
        mapping.MOST_ATTRIBUTES,
        mapping.MOST_EXPRESSIONS,
        mapping.MOST_CHARACTERS,
        round(LONGEST * 1000),
        1,
    ]
