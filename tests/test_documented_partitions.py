"""Oracle's DDL in the documentation, which nothing here runs: its names are ours, and its numbers are right."""

import re
from datetime import UTC, datetime

import pytest

from models import Base
from tests.documentation import BLOCKS, TEXTS, Block

DDL = ("PARTITION", "ALTER TABLE")
NOT_RUN = [block for block in BLOCKS if block.info in {"sql oracle", "sql unread"} and block.text.startswith(DDL)]
WORDS = """ALTER TABLE MODIFY NOT NULL PARTITION BY RANGE VALUES LESS THAN MAXVALUE ENABLE ROW MOVEMENT REFERENCE
SPLIT AT INTO DROP UPDATE INDEXES"""


def ours() -> set[str]:
    """Each name in our schema, lower case."""
    tables = Base.metadata.tables.values()
    return {str(each.name) for table in tables for each in (table, *table.columns, *table.constraints)}


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.text[:40])
def test_names_are_ours(block: Block) -> None:
    """Each word is Oracle's, or names a table, a column or a key that is there, or a month."""
    words = set(re.findall(r"[A-Za-z_]\w*", block.text)) - set(WORDS.split())
    assert {word for word in words - ours() if not re.fullmatch(r"p_\d{4}_\d\d|p_rest", word)} == set()


def test_each_month_ends_where_the_next_begins() -> None:
    """A partition is named for its month: its bound is the first moment of the next one, in UTC, in milliseconds."""
    text = "".join(block.text for block in NOT_RUN)
    found = re.findall(r"PARTITION p_(\d{4})_(\d\d) VALUES LESS THAN \((\d+)\)", text)
    found += [
        (year, month, at) for at, year, month in re.findall(r"AT \((\d+)\)\s+INTO \(PARTITION p_(\d{4})_(\d\d)", text)
    ]
    assert len(found) == 3
    for year, month, bound in found:
        after = datetime(int(year) + int(month) // 12, int(month) % 12 + 1, 1, tzinfo=UTC)
        assert after.timestamp() * 1000 == int(bound)
    assert f"record_ts < {found[0][2]}" in TEXTS["docs/database.md"]
