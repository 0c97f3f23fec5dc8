"""The demo's output: live on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from consumer.demo.figures import Figures

_PLAIN = 4.0  # seconds between lines if nothing can be redrawn
_HEADERS = ("webhook-", "x-webhook-", "content-type", "user-agent", "traceparent")
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}
_COUNTS = {"delivered": "green", "retried": "yellow", "parked": "yellow", "owed": "yellow", "dead": "red"}
_LEGEND = """\
delivered: answered 2xx · retried: attempts after the first · parked: waited
in the database · owed: not delivered yet · dead: given up, kept in the
database · p50, p95: time from publish to 2xx for half, and 95 %, of the events"""


class Screen(Live):
    """The demo's output. Use as a context: the live picture disappears when it ends, printed text stays."""

    def __init__(self) -> None:
        console = Console(highlight=False, markup=False, emoji=False)
        super().__init__(console=console, auto_refresh=False, transient=True)
        self._next = 0.0
        self.contradicted = False

    def say(self, text: str, style: str = "") -> None:
        """Print lines, never wrapped."""
        self.console.print(Text(text, style), soft_wrap=True)

    def tell(self, text: str, good: bool | None = True) -> None:  # noqa: FBT001, FBT002 (the mark before the text)
        """Print a result. `good`: whether it was achieved or shown; None: unknown."""
        self.contradicted |= good is False
        line = Table.grid(padding=(0, 1))
        line.add_row(Text(*_MARKS[good]), text)
        self.console.print(line)

    def request(self, headers: Mapping[str, str], body: bytes, title: str) -> None:
        """Print one request as it arrived."""
        lines = [Text(f"{name}: {text}", "cyan") for name, text in headers.items() if name.startswith(_HEADERS)]
        shown = Text("\n", no_wrap=True, overflow="ellipsis").join([*lines, Text(f"\n{body.decode()}", "bold")])
        self.console.print(Panel(shown, title=title, title_align="left", border_style="dim", padding=(0, 1)))

    def show(self, rows: Sequence[Figures], phase: str) -> None:
        """Draw the current figures, or print a line about them."""
        delivered, owed, dead = (sum(getattr(row, name) for row in rows) for name in ("delivered", "owed", "dead"))
        line = f"{phase}; {delivered:,} delivered, {owed:,} owed, {dead:,} dead"
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.update(Group(Text(line, "bold"), "", *_picture(rows)), refresh=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN
            self.say(line)

    def final(self, rows: Sequence[Figures]) -> None:
        """Print the last figures, in place of the live picture."""
        self.update("", refresh=True)
        self.console.print("", *_picture(rows), "", sep="\n")


def _picture(rows: Sequence[Figures]) -> tuple[Table, str, Text]:
    """A table with a row for each receiver, which fits into 80 columns, and its legend."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    table.add_column("receiver", style="bold", no_wrap=True)
    table.add_column("behaviour", no_wrap=True, overflow="ellipsis")
    for name in (*_COUNTS, "p50", "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        counts = [(getattr(row, name), style) for name, style in _COUNTS.items()]
        cells = [Text(f"{count:,}", style if count else "dim") for count, style in counts]
        table.add_row(row.name, row.character, *cells, row.duration(0.5), row.duration())
    return table, "", Text(_LEGEND, "dim")
