"""Where a subscription that begins in the past starts to read: a place in each partition of its group's topics."""

from collections.abc import Sequence
from datetime import tzinfo

from sqlalchemy import Connection

from consumer.config.types import moment, topic_names
from consumer.errors import InvalidSubscription, WebhooksError
from consumer.events.event import TopicPartition
from consumer.intake.log_reader import LogReader, Place
from consumer.ledger import cursors, marks
from consumer.ledger.cursors import NewCursor
from consumer.subscriptions import repository
from models import CursorReason

EARLIEST = "earliest"
Places = dict[TopicPartition, Place]  # the first records that are read


def since(text: str, now: float, zone: tzinfo | None) -> float:
    """The unix seconds of `earliest` (0), of a time or of an age. InvalidSubscription: it is none, or not in the past.

    A time without a zone is in `zone`; None: it is refused.
    """
    try:
        at = 0.0 if text == EARLIEST else moment(text, now, zone)
    except ValueError as error:
        raise InvalidSubscription(f"{error}, nor {EARLIEST}", "start", "2h") from None
    if at >= now:
        raise InvalidSubscription("it is not in the past", "start", "2h")
    return at


def places(reader: LogReader, names: Sequence[str], option: str | None, at: float) -> Places:
    """The first record stamped `at` or later in each partition; the end of the log where there is none.

    `names` as in KAFKA_TOPICS; `option` names the subscription's own topics (None: all). Raises KafkaUnavailable, and
    WebhooksError if none of the topics exists. ValueError: the option is none.
    """
    topics = None if option is None else topic_names(option)
    chosen = [each for each in reader.partitions(names) if topics is None or each[0] in topics]
    if not chosen:
        raise WebhooksError(f"no topic of KAFKA_TOPICS={','.join(names)} that the subscription gets events from exists")
    return reader.firsts(chosen, at)


def begin(connection: Connection, group: str, subscription_id: int, first: Places, now: float) -> None:
    """Let a subscription that was just added begin at these places, in the transaction that has added it."""
    new = [
        NewCursor((*partition, subscription_id), place.offset, CursorReason.START, timestamp=place.timestamp)
        for partition, place in first.items()
    ]
    cursors.begin(connection, group, new, now)
    repository.note_start(connection, subscription_id)
    marks.look(connection, group, {cursor.due_key for cursor in new})
