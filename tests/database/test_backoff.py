"""The back-off of each kind of database job."""

from structlog.testing import capture_logs

from consumer.database.job import BACK_OFF, Backoff


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_doubles_up_to_its_limit_and_a_success_resets_it() -> None:
    """The first wait is 0.1 s, the longest 5 s."""
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


def test_each_reason_is_logged_once_and_shown_until_a_success() -> None:
    """A repeated failure is logged once, and so is the recovery, which is not logged without a failure."""
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
