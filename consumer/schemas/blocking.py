"""Turns records into JSON for callers that may wait for the registry."""

import time
from collections.abc import Callable
from threading import Lock

from consumer.errors import Undecodable
from consumer.intake.record import Record
from consumer.schemas.conversion import Decode, translated
from consumer.schemas.framing import SchemaId, framed
from consumer.schemas.known import KnownSchemas


def translator(
    load: Callable[[SchemaId], Decode], clock: Callable[[], float] = time.monotonic
) -> Callable[[Record], Record]:
    """A function that returns a record with its value as JSON, as workers decode it; unchanged if it names no schema.

    Any thread may call it. It raises Undecodable, and RegistryUnavailable: call it again later.
    """
    known, lock = KnownSchemas(), Lock()

    def decoder(schema_id: SchemaId) -> Decode | Undecodable:
        now = clock()
        with lock:
            known.purge(now)
            answer = known.get(schema_id)
        if answer is None:
            try:
                answer = load(schema_id)  # several threads may request the same schema
            except Undecodable as refused:
                answer = refused
            with lock:
                known.put(schema_id, answer, now)
        return answer

    def json_of(record: Record) -> Record:
        found = framed(record)
        if found is None:
            return record
        answer = decoder(found.schema)
        if isinstance(answer, Undecodable):
            raise Undecodable(answer.reason, str(answer))
        return translated(record, found, answer)

    return json_of
