"""What worlds have in common whose database is not sound, or not SQLite."""

from dataclasses import replace

from tests.chaos import altered_worker
from tests.chaos.world import Shape


def with_lost_answers(shape: Shape) -> Shape:
    """Some of the database's commits are made and not acknowledged."""
    return replace(shape, program=altered_worker.command(altered_worker.lost_answers), slow=1.0)


def on_oracle(shape: Shape, profile: str) -> Shape:
    """An emulated Oracle, whose calls may not take long."""
    return replace(shape, program=altered_worker.command(altered_worker.impatient), slow=1.0, profile=profile)
