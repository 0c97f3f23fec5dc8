"""How receivers answer: at random, and the same for one seed, path, event and attempt."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from random import Random
from time import time
from typing import Any

from tests.end_to_end.webhook_receiver import Answer, Drip, Rule, Silence

Failure = Callable[[], Answer | Drip | Silence]

# Each ends an attempt, if not otherwise then by the sender's time-out. The first say that the event is at fault, not
# the receiver: a sender that leaves a failing receiver alone for a while need not do so for them.
FAILURES: dict[str, Failure] = {
    "400": lambda: Answer(400),
    "404": lambda: Answer(404),
    "422": lambda: Answer(422),
    "500": lambda: Answer(500),
    "503 late": lambda: Answer(503, delay=0.3),
    "429 with seconds": lambda: Answer(429, header="retry-after: 1"),
    "429 with a date": lambda: Answer(429, header=f"retry-after: {formatdate(time() + 1, usegmt=True)}"),
    "reset": lambda: Silence.RESET,
    "hang": lambda: Silence.HANG,
    # So slow that a sender which is frozen meanwhile finds no whole status line: that would count, however late.
    "drip": lambda: Drip(every=2.0, head=True),
}
SUCCESSES: dict[str, Failure] = {
    "200": Answer,
    "200 late": lambda: Answer(delay=0.2),
    "200 and a body that drips": lambda: Drip(every=0.02, head=False),
}
FEW = 2  # the most failures of one event that is taken in the end


def carried(body: bytes) -> list[dict[str, Any]]:
    """What was published and is in a request: one event as it came, or a batch of CloudEvents."""
    content = json.loads(body)
    return [each["data"] for each in content] if isinstance(content, list) else [content]


@dataclass(frozen=True, slots=True)
class Temper:
    """`failing` is the part of events whose first attempts fail; one in `doomed_every` is never taken (0: none)."""

    seed: int
    failing: float = 0.0
    doomed_every: int = 0

    def doomed(self, number: int) -> bool:
        """No attempt of this event succeeds."""
        return self.doomed_every > 0 and number % self.doomed_every == self.doomed_every // 2

    def plan(self, number: int) -> tuple[str, ...]:
        """What the first attempts of an event come to; the last is for all that follow."""
        random = Random(f"{self.seed} {number}")
        if self.doomed(number):
            return (*random.choices(list(FAILURES), k=2), "422")
        failures = random.randint(1, FEW) if random.random() < self.failing else 0
        return (*random.choices(list(FAILURES), k=failures), random.choice(list(SUCCESSES)) if self.failing else "200")

    def rule(self) -> Rule:
        """For a receiver; it counts the attempts that it sees."""
        return partial(_answer, self, Counter())


def _answer(temper: Temper, attempts: Counter[int], body: bytes) -> Answer | Drip | Silence:
    kinds = [_next(temper, attempts, event["number"]) for event in carried(body)]
    kind = next(filter(FAILURES.get, kinds), kinds[0])  # one that fails takes the others of its batch with it
    return (FAILURES.get(kind) or SUCCESSES[kind])()


def _next(temper: Temper, attempts: Counter[int], number: int) -> str:
    plan = temper.plan(number)
    attempts[number] += 1
    return plan[min(attempts[number], len(plan)) - 1]
