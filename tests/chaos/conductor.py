"""Plays faults in a world, several at once. The seed decides their order and times."""

import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, closing
from heapq import heappop, heappush
from itertools import count, islice
from math import inf
from random import Random

from tests.chaos.faults import Fault, Waits
from tests.chaos.world import World

TICK = 0.1  # seconds
LOOKAHEAD = 4  # of this many next faults, the first one with free needs starts

Playing = list[tuple[float, int, Fault, Waits]]  # a heap, by the time of the next step


def conduct(
    world: World, faults: Iterable[Fault], seed: int, pauses: tuple[float, float], seconds: float = inf
) -> None:
    """Start faults, a pause of random length after each, until the list or the time ends. Returns when all have ended.

    Stops early at a violation, since later ones show little.
    """
    random = Random(f"{seed} faults")
    source = iter(faults)
    waiting = deque(islice(source, LOOKAHEAD))
    playing: Playing = []
    begin = next_at = time.monotonic()
    with ExitStack() as stack:
        for number in count():
            while time.monotonic() < next_at or (waiting and not _startable(waiting, playing)):
                if world.book.broken:
                    return
                _turn(world, playing)
            if not waiting or time.monotonic() - begin > seconds:
                break
            fault = _startable(waiting, playing)
            assert fault is not None
            waiting.remove(fault)
            waiting.extend(islice(source, 1))
            world.faults[fault.name] += 1
            waits = stack.enter_context(closing(fault.play(world, Random(f"{seed} fault {number}"))))
            heappush(playing, (time.monotonic(), number, fault, waits))
            next_at = time.monotonic() + random.uniform(*pauses)
        while playing and not world.book.broken:
            _turn(world, playing)


def _startable(waiting: Iterable[Fault], playing: Playing) -> Fault | None:
    needed = frozenset[str]().union(*(fault.needs for _, _, fault, _ in playing))
    return next((fault for fault in waiting if not fault.needs & needed), None)


def _turn(world: World, playing: Playing) -> None:
    """Run the next step of the fault whose wait is over; else wait a little."""
    world.look_after()
    if not playing or playing[0][0] > time.monotonic():
        time.sleep(TICK)
        return
    _, number, fault, waits = heappop(playing)
    wait = next(waits, None)
    if wait is not None:
        heappush(playing, (time.monotonic() + wait, number, fault, waits))
