"""Remembers the registry's answers. Pure."""

from consumer.errors import Undecodable
from consumer.schemas.conversion import Decode
from consumer.schemas.framing import SchemaId

MOST_KEPT = 1000  # schemas, and as many refusals; the oldest leaves first
REFUSED_FOR = 60.0  # seconds for which an unknown or unusable schema is not requested again


class KnownSchemas:
    """The answers by schema. A schema never changes under its id, so a decoder stays; a refusal is kept for a minute.

    Answers leave only in `put` and `purge`, so an answer of `get` stays valid until then. Unknown ids, however many,
    displace no schema.
    """

    def __init__(self) -> None:
        self._decoders: dict[SchemaId, Decode] = {}
        self._refusals: dict[SchemaId, tuple[Undecodable, float]] = {}  # each with its end, soonest first

    def get(self, schema_id: SchemaId) -> Decode | Undecodable | None:
        """The decoder of this schema's values, or the reason why there is none; None: ask the registry."""
        found = self._decoders.get(schema_id)
        if found is None and schema_id in self._refusals:
            return self._refusals[schema_id][0]
        return found

    def put(self, schema_id: SchemaId, answer: Decode | Undecodable, now: float) -> None:
        """Note an answer of the registry."""
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
