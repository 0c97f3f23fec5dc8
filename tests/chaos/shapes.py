"""Common parts of worlds whose database has faults or is not SQLite."""

from dataclasses import replace

from tests.chaos import altered_worker
from tests.chaos.world import Shape


def with_lost_answers(shape: Shape) -> Shape:
    """Some of the database's commits are made and not acknowledged."""
    return replace(shape, program=altered_worker.command(altered_worker.lost_answers), slow=1.0)


def on_oracle(shape: Shape, profile: str) -> Shape:
    """An emulated Oracle, with a short limit for calls."""
    return replace(shape, program=altered_worker.command(altered_worker.impatient), slow=1.0, profile=profile)
