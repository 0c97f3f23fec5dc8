"""The evaluation time of filters and projections: random expressions on events of many sizes.

    python -m benchmarks.expressions [COUNT] [SEED]

Prints the slowest, by CPU time, with the limit of `consumer.expressions`.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from consumer.expressions.expression import LONGEST, Expression, ExpressionFailed

SHOWN = 10  # number of slowest expressions printed
SOURCE = 200  # characters of a printed expression
TEXTS = (100, 3_000, 30_000, 300_000, 2**20)  # characters of an event's texts
VALUES = (10, 100, 400, 1500, 6000)  # values in an event's lists
FIELDS = ("data.s", "data.t", "data.l", "data.w", "data.o", "data.m", "data.d", "data.n", "type", "headers.h", "data")
SIGNS = ("==", "!=", "<", ">=", "+", "&&", "||", "in", "-", "*")
CALLS = ("size", "string", "int", "double", "bytes", "type", "dyn", "timestamp", "duration", "bool", "uint")
LOOPS = ("all", "exists", "exists_one", "map", "filter")
ATOMS = (".", "[^a]", r"\w", r"\D", "[a-z]", "a", "(a|b)", "(?:ab?)", "é", "[ab]", ".*", r"\S*", "x?", r"\b")
COUNTS = ("", "", "*", "+", "?", "{3}", "{2,9}", "{30}")


def pattern(pick: random.Random) -> str:
    """A regular expression, as expensive as a short one can be."""
    parts = "".join(pick.choice(ATOMS) + pick.choice(COUNTS) for _ in range(pick.randint(1, 12)))
    return pick.choice(("", "", "(?i)")) + parts + pick.choice(("", "$", "c"))


def expression(pick: random.Random, depth: int, names: tuple[str, ...], *, loops: bool) -> str:
    """The text of an expression over `names`."""

    def inner() -> str:
        return expression(pick, depth - 1, names, loops=loops)

    kinds: list[Callable[[], str]] = [
        lambda: f"({inner()} {pick.choice(SIGNS)} {inner()})",
        lambda: f"{pick.choice(CALLS)}({inner()})",
        lambda: f"{inner()}.{pick.choice(('startsWith', 'endsWith'))}({inner()})",
        lambda: f"{inner()}.contains({'a' * pick.randint(1, 99) + 'b'!r})",
        lambda: f"{pick.choice(names)}.matches(r'{pattern(pick)}')",
        lambda: f"[{', '.join(inner() for _ in range(pick.randint(1, 6)))}]",
        lambda: f"{{'a': {inner()}, 'b': {inner()}}}",
        lambda: f"({inner()} ? {inner()} : {inner()})",
        lambda: f"{pick.choice(names)}[{pick.choice(('0', inner()))}]",
        lambda: f"{pick.choice(names)}.s",
        lambda: pick.choice((*names, *names, "1", "'a'", "[1, 2]", "true")),
    ]
    if loops:
        kinds += 3 * [lambda: loop(pick, depth, names)]
    return pick.choice(kinds)() if depth > 0 else pick.choice((*names, "1", "'a'"))


def loop(pick: random.Random, depth: int, names: tuple[str, ...]) -> str:
    """A loop over a field, or over a filtered field."""
    over = pick.choice((*names, f"[{', '.join(['1'] * pick.randint(1, 300))}]"))
    if not pick.randrange(3):
        over += f".filter(x, {expression(pick, depth - 2, ('x', 'x.s', *names), loops=False)})"
    return f"{over}.{pick.choice(LOOPS)}(x, {expression(pick, depth - 1, ('x', 'x.s', 'x.n', *names), loops=False)})"


def variables(text: int, values: int, letters: str) -> dict[str, object]:
    """The variables of an event with texts of this length and lists of this size."""
    string = (letters * (text // len(letters) + 1))[:text]
    data = {
        "s": string,
        "t": string[:-1] + "b",
        "l": [number % 10 for number in range(values)],
        "w": [string[: text // max(1, values) + 1]] * values,
        "o": [{"s": string[: text // max(1, values) + 1], "n": number} for number in range(values // 4)],
        "m": {str(number): number for number in range(values)},
        "d": {"s": string, "l": list(range(values))},
        "n": values,
    }
    return {"event.data": data, "event.type": "order.created", "event.headers": {"h": string}}


def seconds(compiled: Expression, event: dict[str, object]) -> float:
    """CPU seconds of one evaluation, or of finding that the event is too large."""
    begin = time.thread_time()
    with suppress(ExpressionFailed):
        compiled.value(event)
    return time.thread_time() - begin


def slowest(compiled: Expression, events: list[dict[str, object]]) -> float:
    """The slowest of all events; times that are slow by chance are repeated."""
    worst = 0.0
    for event in events:
        took = seconds(compiled, event)
        if took > worst:
            worst = max(worst, min(took, *(seconds(compiled, event) for _ in range(3))))
    return worst


def worst(count: int, seed: int) -> Iterator[tuple[float, str]]:
    """`count` permitted expressions, each with its highest CPU seconds."""
    pick = random.Random(seed)  # noqa: S311 (no secret)
    sizes = [(text, values) for text in TEXTS for values in VALUES]
    events = [variables(text, values, letters) for text, values in sizes for letters in ("a", "abé")]
    while count:
        source = expression(pick, pick.randint(1, 5), FIELDS, loops=True)
        try:
            compiled = Expression(source)
        except ValueError:
            continue
        count -= 1
        yield slowest(compiled, events), source


def main(count: int, seed: int) -> None:
    """Tries `count` expressions."""
    found: list[tuple[float, str]] = []
    for number, each in enumerate(worst(count, seed), 1):
        found = sorted([*found, each], reverse=True)[:SHOWN]
        if not number % 1000:
            print(f"{number} tried, slowest {found[0][0] * 1000:.2f} ms: {found[0][1][:SOURCE]}", file=sys.stderr)
    print(f"{count} expressions; allowed: {LONGEST * 1000:g} ms")
    for took, source in found:
        print(f"{took * 1000:8.2f} ms  {source[:SOURCE]}")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(int(given.get(1, 1000)), int(given.get(2, 1)))
