"""The answers of receivers: random, but the same for the same seed, path, event and attempt."""

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

# Each ends an attempt, at the latest by the sender's time-out. The first ones blame the event, not the receiver, so
# that a sender that spares failing receivers for a while need not spare this one.
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
    # So slow that a sender that is frozen meanwhile finds no complete status line, which would count however late.
    "drip": lambda: Drip(every=2.0, head=True),
}
SUCCESSES: dict[str, Failure] = {
    "200": Answer,
    "200 late": lambda: Answer(delay=0.2),
    "200 and a body that drips": lambda: Drip(every=0.02, head=False),
}
FEW = 2  # the maximum of failures of an event that is accepted in the end


def carried(body: bytes) -> list[dict[str, Any]]:
    """The published values in a request: one event unchanged, or a batch of CloudEvents."""
    content = json.loads(body)
    return [each["data"] for each in content] if isinstance(content, list) else [content]


@dataclass(frozen=True, slots=True)
class Temper:
    """`failing` is the part of events whose first attempts fail. One in `doomed_every` is never accepted (0: none)."""

    seed: int
    failing: float = 0.0
    doomed_every: int = 0

    def doomed(self, number: int) -> bool:
        """Whether no attempt of this event succeeds."""
        return self.doomed_every > 0 and number % self.doomed_every == self.doomed_every // 2

    def plan(self, number: int) -> tuple[str, ...]:
        """The results of the first attempts of an event. The last one is for all later attempts."""
        random = Random(f"{self.seed} {number}")
        if self.doomed(number):
            return (*random.choices(list(FAILURES), k=2), "422")
        failures = random.randint(1, FEW) if random.random() < self.failing else 0
        return (*random.choices(list(FAILURES), k=failures), random.choice(list(SUCCESSES)) if self.failing else "200")

    def rule(self) -> Rule:
        """The rule for a receiver. It counts the attempts that arrive."""
        return partial(_answer, self, Counter())


def _answer(temper: Temper, attempts: Counter[int], body: bytes) -> Answer | Drip | Silence:
    kinds = [_next(temper, attempts, event["number"]) for event in carried(body)]
    kind = next(filter(FAILURES.get, kinds), kinds[0])  # a failing event fails the others of its batch
    return (FAILURES.get(kind) or SUCCESSES[kind])()


def _next(temper: Temper, attempts: Counter[int], number: int) -> str:
    plan = temper.plan(number)
    attempts[number] += 1
    return plan[min(attempts[number], len(plan)) - 1]
