"""The result of a run, as a row of a table."""

from collections import Counter
from itertools import groupby

from tests.chaos.book import Book, Rule
from tests.chaos.world import World

HEADER = (
    "| run | seed | faults | seconds | events | deliveries | attempts | commits | lost | repeated, by cause"
    " | out of order | violations |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def line(run: str, world: World) -> str:
    """The row under HEADER of a world that has ended. `seconds` is the time of publishing."""
    book = world.book
    cells = (
        run,
        world.shape.seed,
        ", ".join(f"{number} {_with_calls(name, world)}" for name, number in sorted(world.faults.items())) or "none",
        round(world.ended_at - world.began_at),
        len(book.events),
        sum(bool(story.accepted) for story in book.stories.values()),
        len(world.deployment.receiver.requests),
        world.watch.commits,
        book.broken[Rule.LOST],
        f"{len(book.repeats)} ({_causes(book)})" if book.disruptions else len(book.repeats),
        book.broken[Rule.ORDER],
        len(book.violations),
    )
    return f"| {' | '.join(map(str, cells))} |"


def full(run: str, world: World) -> str:
    """The row, the violations, and all faults and repeats by their time."""
    book = world.book
    told = [
        (each.at, f"{each.what} until {each.until:.3f}: {each.repeated} repeated, not settled at {each.since:.3f}")
        for each in book.disruptions
    ]
    happened = [f"{at:.3f} {what}" for at, what in sorted(world.moves + told + _repeats(book))]
    violations = [f"{rule}: {what}" for rule, what in book.violations]
    return "\n".join([line(run, world), *(f"  {each}" for each in (*violations, *happened))])


def text(run: str, world: World) -> str:
    """The row and, after a failure, everything."""
    return full(run, world) if world.book.violations else line(run, world)


def _with_calls(fault: str, world: World) -> str:
    return f"{fault} ({world.met[fault]} calls met it)" if world.met[fault] else fault


def _causes(book: Book) -> str:
    """The disruptions, their number, and the repeated deliveries that each explains."""
    times, repeated = Counter[str](), Counter[str]()
    for each in book.disruptions:
        times[each.what] += 1
        repeated[each.what] += each.repeated
    return ", ".join(f"{repeated[what]} by {times[what]} {what}" for what in sorted(times))


def _repeats(book: Book) -> list[tuple[float, str]]:
    """Repeats, grouped by second, partition and cause."""
    lines = []
    ordered = sorted((int(each.at), each.partition, each.cause, each.at, each.before) for each in book.repeats)
    for (_, partition, cause), group in groupby(ordered, key=lambda each: each[:3]):
        here = list(group)
        before = sorted(each[4] for each in here)
        what = f"{len(here)} of partition {partition} again, first accepted from {before[0]:.3f} to {before[-1]:.3f}"
        lines.append((here[0][3], f"{what}: {cause}"))
    return lines
