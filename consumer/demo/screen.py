"""The demo's output: live on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Sequence
from textwrap import wrap
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consumer.demo.figures import Figures
from consumer.demo.receivers import Request

_REDRAW = 0.25  # seconds
_PLAIN = 4.0  # seconds between lines if nothing can be redrawn
_WIDE = 100  # columns
_SECOND = 1.0
_HEADERS = ("content-type", "user-agent", "traceparent")
LEGEND = (
    "delivered: answered 2xx · retried: attempts after the first · parked: waited\n"
    "in the database · owed: not delivered yet · dead: given up, kept in the\n"
    "database · p50, p95: half, and 95 %, were answered within this after publishing"
)


class Screen:
    """The demo's output. Use as a context: the live picture disappears when it ends, printed text stays."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        live = sys.stdout.isatty() and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str = "", style: str = "") -> None:
        """Print a paragraph."""
        self._console.print(Text(text, style=style))

    def done(self, text: str, *, good: bool | None = True) -> None:
        """Print a result. `good`: whether it was achieved or shown; None: unknown."""
        mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}[good]
        lines = wrap(text, self._console.width - 2)
        self._console.print(Text.assemble((mark, style), " ", "\n  ".join(lines)))

    def waiting(self, text: str) -> None:
        """Show what the demo waits for."""
        if self._live is not None:
            self._live.update(Text(f"… {text}", style="dim"), refresh=True)
        else:
            self._console.print(Text(f"… {text}"))

    def request(self, request: Request, title: str, verdict: str) -> None:
        """Print one request as it arrived."""
        head = Text(overflow="ellipsis", no_wrap=True)
        head.append(f"{request.line}\n", style="bold")
        for name, value in request.headers.items():
            if name.startswith(("webhook-", "x-webhook-")) or name in _HEADERS:
                head.append(f"{name}: ", style="cyan").append(f"{value}\n")
        head.append(f"\n{request.body.decode()}\n", style="bold")
        head.append(f"\n✓ {verdict}", style="green")
        self._console.print(Panel(head, title=title, title_align="left", border_style="dim", padding=(0, 1)))

    def due(self) -> bool:
        """Whether it is time to draw the picture again."""
        return time.monotonic() >= self._next

    def show(self, rows: Sequence[Figures], phase: str, published: int, total: int, seconds: float) -> None:
        """Draw the picture of the current figures."""
        delivered, dead, owed = (sum(getattr(row, name) for row in rows) for name in ("delivered", "dead", "owed"))
        if self._live is None:
            self._next = time.monotonic() + _PLAIN
            self._console.print(
                Text(
                    f"{seconds:3.0f} s  {published:,} of {total:,} published; "
                    f"{delivered:,} delivered, {owed:,} owed, {dead:,} dead"
                )
            )
            return
        self._next = time.monotonic() + _REDRAW
        bars = Table.grid(padding=(0, 1))
        bars.add_row("events published", ProgressBar(total, published, width=30), f"{published:,} of {total:,}")
        ended = delivered + dead
        bars.add_row("deliveries ended", ProgressBar(max(1, ended + owed), ended, width=30), f"{owed:,} owed")
        self._live.update(
            Group(
                Text(f"{seconds:.0f} s · {phase}", style="bold"),
                Text(),
                self.table(rows),
                Text(),
                bars,
                Text(),
                Text(LEGEND, style="dim"),
            ),
            refresh=True,
        )

    def final(self, rows: Sequence[Figures]) -> None:
        """Print the final table."""
        if self._live is not None:
            self._live.update(Text(), refresh=True)
        self._console.print(Group(Text(), self.table(rows), Text(), Text(LEGEND, style="dim"), Text()))

    def commands(self, text: str) -> None:
        """Print lines to copy, never wrapped."""
        self._console.print(Text(text, style="cyan"), soft_wrap=True)

    def table(self, rows: Sequence[Figures]) -> Table:
        """A table with a row for each receiver; it fits into 80 columns."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
        table.add_column("receiver", no_wrap=True)
        wide = self._console.width >= _WIDE
        if wide:
            table.add_column("wants", no_wrap=True)
        table.add_column("behaviour", no_wrap=True, overflow="ellipsis")
        for name in ("delivered", "retried", "parked", "owed", "dead", "p50", "p95"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            cells: list[RenderableType] = [Text(row.name, style="bold")]
            if wide:
                cells.append(row.event_type)
            cells.append(row.character)
            cells += [
                Text(f"{row.delivered:,}", style="green" if row.delivered else "dim"),
                _count(row.retried, "yellow"),
                _count(row.parked, "yellow"),
                _count(row.owed, "yellow"),
                _count(row.dead, "red"),
                duration(row.p50),
                duration(row.p95),
            ]
            table.add_row(*cells)
        return table


def duration(seconds: float | None) -> str:
    """Seconds as text: `300 ms` or `1.5 s`; `-` for None."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= _SECOND else f"{seconds * 1000:.0f} ms"


def _count(number: int, style: str) -> Text:
    return Text(f"{number:,}", style=style) if number else Text("0", style="dim")
