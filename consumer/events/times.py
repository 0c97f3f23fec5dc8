"""Times outside the calendar: producers set the timestamps of records, and people write times into rows. Pure."""

from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = -62135596800.0  # unix seconds of 0001-01-01T00:00:00Z
LAST = 253402300799.9999  # of 9999-12-31T23:59:59.9999Z: a float rounds the last microsecond up to the year 10000


def in_calendar(seconds: float) -> float:
    """The nearest time (unix seconds) in the years 1 to 9999."""
    return min(max(seconds, FIRST), LAST)


def utc(at: float) -> datetime:
    """Unix seconds as a datetime. The epoch for a time before it, and for one after the year 9999.

    The first is that of a record without a timestamp, the second that of one with microseconds, for example.
    """
    try:
        return datetime.fromtimestamp(max(0, at), UTC)
    except (ValueError, OverflowError, OSError):
        return EPOCH
