"""The times that a datetime can have. Pure."""

FIRST = -62135596800.0  # unix seconds of 0001-01-01T00:00:00Z
LAST = 253402300799.9999  # of 9999-12-31T23:59:59.9999Z: a float rounds the last microsecond up to the year 10000


def in_calendar(seconds: float) -> float:
    """The nearest time (unix seconds) in the years 1 to 9999."""
    return min(max(seconds, FIRST), LAST)
