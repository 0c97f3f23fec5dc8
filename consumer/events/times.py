"""Times that may lie outside the calendar, because producers set the timestamps of records. Pure."""

from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(at: float) -> datetime:
    """Unix seconds as a datetime. The epoch for a time before it, and for one after the year 9999.

    The first is that of a record without a timestamp, the second that of one with microseconds, for example.
    """
    try:
        return datetime.fromtimestamp(max(0, at), UTC)
    except (ValueError, OverflowError, OSError):
        return EPOCH
