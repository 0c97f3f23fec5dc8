"""Runs the decoder of records, so that a bug in it costs the record at fault and no other."""

from collections.abc import Callable
from traceback import format_tb
from typing import TypeVar

import structlog

from consumer.errors import RegistryUnavailable, Tombstone, Undecodable
from consumer.intake.record import Record

log = structlog.get_logger(__name__)

T = TypeVar("T")


def decoded(decoder: Callable[[Record], T], record: Record) -> T:
    """The result of `decoder`. Raises its Tombstone, Undecodable and RegistryUnavailable.

    Any other exception is logged, and becomes an Undecodable with the reason error.
    """
    try:
        return decoder(record)
    except (Tombstone, Undecodable, RegistryUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 (raised, it would end each worker and each replay that reads the record)
        kind, places = type(error).__name__, "".join(format_tb(error.__traceback__))
        place = (*record.partition.topic_partition, record.offset)
        # Without the exception's text, which may quote the record.
        log.error("a record's decoding failed: a bug", record=place, error=kind, exception=places)  # noqa: TRY400
        raise Undecodable("error", f"the service has failed to decode it: {kind}") from None
