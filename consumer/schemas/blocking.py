"""Turns records into JSON for callers that may wait for the registry."""

import time
from collections.abc import Callable

from consumer.errors import Undecodable
from consumer.intake.record import Record
from consumer.schemas.conversion import Decode, translated
from consumer.schemas.framing import SchemaId, framed
from consumer.schemas.known import KnownSchemas


def translator(
    load: Callable[[SchemaId], Decode], clock: Callable[[], float] = time.monotonic
) -> Callable[[Record], Record]:
    """A function that gives records their value as JSON, as a worker does; others it returns as they are.

    It raises Undecodable, and RegistryUnavailable: ask again.
    """
    known = KnownSchemas()

    def json_of(record: Record) -> Record:
        found = framed(record)
        if found is None:
            return record
        now = clock()
        known.purge(now)
        answer = known.get(found.schema)
        if answer is None:
            try:
                answer = load(found.schema)
            except Undecodable as refused:
                answer = refused
            known.put(found.schema, answer, now)
        if isinstance(answer, Undecodable):
            raise Undecodable(answer.reason, str(answer))
        return translated(record, found, answer)

    return json_of
