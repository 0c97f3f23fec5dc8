"""The result of a run, as rows of a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.book import Book, Repeat, Rule
from tests.chaos.world import World

HEADER = (
    "| run | seed | faults | seconds | events | deliveries | attempts | commits | lost | repeated, by cause"
    " | out of order | violations |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run. `seconds` is the time of publishing, `repeated` has the repeated deliveries by cause."""

    run: str
    seed: int
    faults: Sequence[tuple[str, int]]
    seconds: float
    events: int
    deliveries: int
    attempts: int
    commits: int
    lost: int
    repeated: int
    causes: Sequence[tuple[str, int, int]]
    out_of_order: int
    violations: Sequence[str]
    timeline: Sequence[str]

    def line(self) -> str:
        """A row under HEADER."""
        faults = ", ".join(f"{number} {name}" for name, number in self.faults) or "none"
        causes = ", ".join(f"{repeated} by {times} {what}" for what, times, repeated in self.causes)
        cells = (
            self.run,
            self.seed,
            faults,
            round(self.seconds),
            self.events,
            self.deliveries,
            self.attempts,
            self.commits,
            self.lost,
            f"{self.repeated} ({causes})" if causes else self.repeated,
            self.out_of_order,
            len(self.violations),
        )
        return f"| {' | '.join(map(str, cells))} |"

    def text(self) -> str:
        """The row and, after a failure, the violations and all faults."""
        return self.full() if self.violations else self.line()

    def full(self) -> str:
        """The row, the violations, and all faults."""
        return "\n".join([self.line(), *(f"  {each}" for each in (*self.violations, *self.timeline))])


def report(run: str, world: World) -> Report:
    """The report of a world that has ended."""
    book = world.book
    stories = book.stories.values()
    return Report(
        run,
        world.shape.seed,
        [(_with_calls(name, world.met[name]), number) for name, number in sorted(world.faults.items())],
        world.ended_at - world.began_at,
        len(book.events),
        sum(bool(story.accepted) for story in stories),
        len(world.deployment.receiver.requests),
        world.watch.commits,
        book.broken[Rule.LOST],
        len(book.repeats),
        _causes(book),
        book.broken[Rule.ORDER],
        [f"{rule}: {what}" for rule, what in book.violations],
        [f"{at:.3f} {what}" for at, what in sorted(_happenings(world))],
    )


def _with_calls(fault: str, met: int) -> str:
    return f"{fault} ({met} calls met it)" if met else fault


def _causes(book: Book) -> list[tuple[str, int, int]]:
    """The disruptions, their number, and the repeated deliveries that each explains."""
    times, repeated = Counter[str](), Counter[str]()
    for each in book.disruptions:
        times[each.what] += 1
        repeated[each.what] += each.repeated
    return [(what, times[what], repeated[what]) for what in sorted(times)]


def _happenings(world: World) -> list[tuple[float, str]]:
    return world.moves + _disruptions(world.book) + _repeats(world.book)


def _disruptions(book: Book) -> list[tuple[float, str]]:
    return [
        (each.at, f"{each.what} until {each.until:.3f}: {each.repeated} repeated, not settled at {each.since:.3f}")
        for each in book.disruptions
    ]


def _repeats(book: Book) -> list[tuple[float, str]]:
    """Repeats, grouped by second, partition and cause."""
    together: dict[tuple[int, int, str], list[Repeat]] = {}
    for each in book.repeats:
        together.setdefault((int(each.at), each.partition, each.cause), []).append(each)
    lines = []
    for (_, partition, cause), here in together.items():
        before = sorted(each.before for each in here)
        what = f"{len(here)} of partition {partition} again, first accepted from {before[0]:.3f} to {before[-1]:.3f}"
        lines.append((here[0].at, f"{what}: {cause}"))
    return lines
