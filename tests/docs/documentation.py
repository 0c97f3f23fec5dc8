"""The documentation's pages, tables and fenced blocks, and the program's text, for tests that compare them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "consumer").rglob("*.py")))


class Block(NamedTuple):
    """A fenced block: its page, its info string, and its text."""

    page: str
    info: str
    text: str


BLOCKS = [
    Block(page, info, body)
    for page, content in TEXTS.items()
    for info, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)
]


def prose(content: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", content, flags=re.MULTILINE | re.DOTALL)


def cells(line: str) -> list[str]:
    """The cells of a table's row."""
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its header."""
    section = re.split(rf"^#+ {re.escape(heading)}$", TEXTS[page], flags=re.MULTILINE)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, heading
    return [cells(line) for line in lines[0].splitlines()[2:]]


def table_behind(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line starts so."""
    return [cells(line) for line in TEXTS[page].split(head)[1].split("\n\n")[0].splitlines()[2:]]


def code(cell: str) -> list[str]:
    """The code spans, in order."""
    return re.findall(r"`([^`]+)`", cell)
