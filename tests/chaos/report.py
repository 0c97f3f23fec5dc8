"""What a run came to, as lines of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.book import Rule
from tests.chaos.world import World

HEADER = (
    "| run | seed | faults | events | deliveries | attempts | commits | lost | repeated, per kill | violations |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run; `repeated` are deliveries, by the fault that explains them."""

    run: str
    seed: int
    faults: Sequence[tuple[str, int]]
    events: int
    deliveries: int
    attempts: int
    commits: int
    lost: int
    repeated: Sequence[tuple[str, int]]
    violations: Sequence[str]
    timeline: Sequence[str]

    def line(self) -> str:
        """A row under HEADER."""
        faults = ", ".join(f"{number} {name}" for name, number in self.faults) or "none"
        repeated = ", ".join(f"{name}: {number}" for name, number in self.repeated) or "0"
        cells = (self.run, self.seed, faults, self.events, self.deliveries, self.attempts, self.commits, self.lost)
        return f"| {' | '.join(map(str, cells))} | {repeated} | {len(self.violations)} |"

    def text(self) -> str:
        """The row; where something is wrong, what, and all that happened."""
        details = (*self.violations, *self.timeline) if self.violations else ()
        return "\n".join([self.line(), *(f"  {each}" for each in details)])


def report(run: str, world: World) -> Report:
    """Of a world that has ended."""
    book = world.book
    stories = book.stories.values()
    return Report(
        run,
        world.shape.seed,
        sorted(world.faults.items()),
        len(book.events),
        sum(bool(story.accepted) for story in stories),
        len(world.deployment.receiver.requests),
        world.watch.commits,
        book.broken[Rule.LOST],
        [(each.what, each.repeated) for each in book.disruptions if each.repeated],
        [f"{rule}: {what}" for rule, what in book.violations],
        [f"{at:.3f} {what}" for at, what in sorted(_happenings(world))],
    )


def _happenings(world: World) -> list[tuple[float, str]]:
    return world.moves + [
        (each.at, f"{each.what} until {each.until:.3f}; at risk is what was touched since {each.since:.3f}")
        for each in world.book.disruptions
    ]
