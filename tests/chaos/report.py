"""The result of a run, as a row of a table."""

from collections import Counter

from tests.chaos.book import Book, Rule
from tests.chaos.world import World

HEADER = (
    "| run | seed | faults | seconds | events | deliveries | by cursors | attempts | commits | lost"
    " | repeated, by cause | out of order | audited | violations |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
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
        book.by_cursors(),
        len(world.deployment.receiver.requests),
        world.watch.commits,
        book.broken[Rule.LOST],
        f"{len(book.repeats)} ({_causes(book)})" if book.disruptions else len(book.repeats),
        book.broken[Rule.ORDER],
        f"{world.audited['matched']}, {world.audited['missing']} missing" if world.audited else "no",
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
    repeats = [
        (each.at, f"partition {each.partition} again, accepted before at {each.before:.3f}: {each.cause}")
        for each in book.repeats
    ]
    happened = [f"{at:.3f} {what}" for at, what in sorted(world.moves + told + repeats)]
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
