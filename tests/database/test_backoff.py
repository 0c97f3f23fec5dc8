"""One back-off for each kind of database job."""

from structlog.testing import capture_logs

from consumer.database.backoff import BACK_OFF, Backoff


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_doubles_to_its_limit_and_starts_anew_with_a_success() -> None:
    """0.1 s after the first failure, never more than five; not over before it is over."""
    clock = Clock()
    backoff = Backoff(clock)
    assert backoff.ready
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        backoff.failed(RuntimeError("down"), "could not")
        clock.now += wait * 0.99
        assert not backoff.ready
        clock.now += wait * 0.011
        assert backoff.ready
    backoff.succeeded()
    backoff.failed(RuntimeError("down"), "could not")
    clock.now += BACK_OFF[0] * 1.01
    assert backoff.ready


def test_each_reason_is_logged_once_and_said_until_a_success() -> None:
    """A failure that repeats itself is one line; so is the end of it, which is none without a beginning."""
    backoff = Backoff(Clock())
    with capture_logs() as logs:
        for reason in ("refused", "refused", "no listener", "refused"):
            backoff.failed(RuntimeError(reason), "could not write")
            assert backoff.fault == f"database: {reason}"
        backoff.succeeded()
        backoff.succeeded()
    assert [(line["event"], line.get("error")) for line in logs] == [
        ("could not write", "refused"),
        ("could not write", "no listener"),
        ("could not write", "refused"),
        ("the database answers again", None),
    ]
    assert backoff.fault is None
