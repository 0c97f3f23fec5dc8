"""Remembers what the registry has answered. Pure."""

from consumer.errors import Undecodable
from consumer.schemas.conversion import Decode
from consumer.schemas.framing import SchemaId

MOST_KEPT = 1000  # schemas, and as many refusals; the oldest leaves first
REFUSED_FOR = 60.0  # seconds for which an unknown or unusable schema is not asked for again


class KnownSchemas:
    """The answers by schema. A schema never changes under its id, so a good answer stays; a refusal is for a minute.

    Answers leave only in `put` and `purge`: what `get` has found is there until then. However many unknown ids come,
    they drive out no schema.
    """

    def __init__(self) -> None:
        self._decoders: dict[SchemaId, Decode] = {}
        self._refusals: dict[SchemaId, tuple[Undecodable, float]] = {}  # until when, soonest first

    def get(self, schema_id: SchemaId) -> Decode | Undecodable | None:
        """What makes JSON of values of this schema, or why nothing can; None: ask the registry."""
        found = self._decoders.get(schema_id)
        if found is None and schema_id in self._refusals:
            return self._refusals[schema_id][0]
        return found

    def put(self, schema_id: SchemaId, answer: Decode | Undecodable, now: float) -> None:
        """Note the answer to a question."""
        if isinstance(answer, Undecodable):
            self._refusals.pop(schema_id, None)
            self._refusals[schema_id] = answer, now + REFUSED_FOR
            if len(self._refusals) > MOST_KEPT:
                del self._refusals[next(iter(self._refusals))]
            return
        self._decoders[schema_id] = answer
        if len(self._decoders) > MOST_KEPT:
            del self._decoders[next(iter(self._decoders))]

    def purge(self, now: float) -> None:
        """Forget refusals that are over."""
        while self._refusals:
            schema_id, (_, until) = next(iter(self._refusals.items()))
            if now < until:
                return
            del self._refusals[schema_id]
