"""Remembers what the registry has answered."""

from consumer.errors import Undecodable
from consumer.schemas.conversion import Decode
from consumer.schemas.framing import SchemaId

MOST_KEPT = 1000  # answers; the oldest leaves first
REFUSED_FOR = 60.0  # seconds for which an unknown or unusable schema is not asked for again


class KnownSchemas:
    """The answers by schema. A schema never changes under its id, so a good answer stays; others are for a minute.

    Answers leave only in `put` and `purge`: what `get` has found is there until then.
    """

    def __init__(self) -> None:
        self._answers: dict[SchemaId, Decode | Undecodable] = {}
        self._refused: dict[SchemaId, float] = {}  # until when, soonest first

    def get(self, schema_id: SchemaId) -> Decode | Undecodable | None:
        """What makes JSON of values of this schema, or why nothing can; None: ask the registry."""
        return self._answers.get(schema_id)

    def put(self, schema_id: SchemaId, answer: Decode | Undecodable, now: float) -> None:
        """Note an answer."""
        self._answers[schema_id] = answer
        self._refused.pop(schema_id, None)
        if isinstance(answer, Undecodable):
            self._refused[schema_id] = now + REFUSED_FOR
        while len(self._answers) > MOST_KEPT:
            oldest = next(iter(self._answers))
            del self._answers[oldest]
            self._refused.pop(oldest, None)

    def purge(self, now: float) -> None:
        """Forget refusals that are over."""
        while self._refused:
            schema_id, until = next(iter(self._refused.items()))
            if now < until:
                return
            del self._refused[schema_id]
            self._answers.pop(schema_id, None)
