"""A kind of work for a database thread, one piece at a time."""

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from consumer.database.job import BACK_OFF, SLOW, Backoff, Batch, DatabaseJob


class Bench:
    """A job whose pieces the test answers."""

    def __init__(self, backs_off: Callable[[Exception], bool]) -> None:
        self.now = 100.0
        self.submitted: list[tuple[str, Callable[[str | Exception], None]]] = []
        self.done: list[str] = []
        self.failed: list[Exception] = []
        self.job = DatabaseJob[str, str](
            lambda work, answered: self.submitted.append((work, answered)),
            "could not",
            lambda: self.now,
            backs_off=backs_off,
        )

    def run(self, answer: str | Exception) -> None:
        """Starts a piece and answers it."""
        self.job.start("work", self.done.append, self.failed.append)
        self.submitted.pop()[1](answer)


def test_a_batch_shrinks_when_it_is_too_large_and_grows_when_it_is_full() -> None:
    """A small piece that succeeds tells nothing of larger ones, and one without any things nothing of their number."""
    batch, sizes = Batch(8), []
    for number in (0, -8, -3, 1, 1, 2, 4, 8):
        if number > 0:
            batch.succeeded(number)
        else:
            batch.was_too_large(-number)
        sizes.append(batch.size)
    assert sizes == [8, 4, 1, 2, 2, 4, 8, 8]


@pytest.fixture
def bench() -> Bench:
    """A job for which a ValueError concerns one piece alone."""
    return Bench(lambda error: not isinstance(error, ValueError))


def test_one_piece_is_under_way_at_most(bench: Bench) -> None:
    """The next piece may not start before the last is answered."""
    assert bench.job.ready
    bench.job.start("work", bench.done.append)
    assert (bench.job.busy, bench.job.ready) == (True, False)
    with pytest.raises(RuntimeError, match="in progress"):
        bench.job.start("another", bench.done.append)
    (work, answered) = bench.submitted.pop()
    answered("result")
    assert (work, bench.done) == ("work", ["result"])
    assert (bench.job.busy, bench.job.ready) == (False, True)


@pytest.mark.parametrize("answer", ["", "result"])
def test_anything_but_an_error_is_a_success(bench: Bench, answer: str) -> None:
    """A result, even an empty one, ends the back-off."""
    bench.run(RuntimeError("down"))
    bench.now += BACK_OFF[1]
    bench.run(answer)
    assert (bench.done, bench.job.fault, bench.job.ready) == ([answer], None, True)


def test_a_failure_is_reported_and_backed_off(bench: Bench) -> None:
    """The fault shows until a success, and the next piece waits."""
    bench.run(RuntimeError("down"))
    assert [str(error) for error in bench.failed] == ["down"]
    assert (bench.job.fault, bench.job.ready) == ("database: down", False)
    bench.now += BACK_OFF[0]
    assert bench.job.ready


def test_a_piece_without_an_answer_is_a_fault_before_it_ends(bench: Bench) -> None:
    """A locked file or table holds a statement up for half a minute. The error of the piece before says more."""
    bench.job.start("work", bench.done.append)
    assert bench.job.fault is None
    bench.now += SLOW
    assert bench.job.fault == "database: no answer for 5 s"
    bench.submitted.pop()[1](RuntimeError("down"))
    bench.now += SLOW
    assert bench.job.fault == "database: down"
    bench.job.start("work", bench.done.append)
    bench.now += SLOW
    assert bench.job.fault == "database: down"
    bench.submitted.pop()[1]("result")
    assert bench.job.fault is None


def test_an_error_of_one_piece_delays_no_other(bench: Bench) -> None:
    """The database has answered, so such an error ends the back-off of an outage."""
    bench.run(RuntimeError("down"))
    bench.now += BACK_OFF[0]
    bench.run(ValueError("refused"))
    assert [str(error) for error in bench.failed] == ["down", "refused"]
    assert (bench.job.fault, bench.job.ready) == (None, True)


def test_a_callback_may_start_the_next_piece(bench: Bench) -> None:
    """The callback of an ended piece may start another at once."""
    bench.job.start("first", lambda _: bench.job.start("second", bench.done.append))
    bench.submitted.pop()[1]("result")
    assert [work for work, _ in bench.submitted] == ["second"]
    assert bench.job.busy


def test_the_wait_doubles_up_to_its_limit_and_a_success_resets_it() -> None:
    """The first wait is 0.1 s, the longest 5 s."""
    now = 100.0
    backoff = Backoff(lambda: now)
    assert backoff.ready
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        backoff.failed(RuntimeError("down"), "could not")
        now += wait * 0.99
        assert not backoff.ready
        now += wait * 0.011
        assert backoff.ready
    backoff.succeeded()
    backoff.failed(RuntimeError("down"), "could not")
    now += BACK_OFF[0] * 1.01
    assert backoff.ready


def test_each_reason_is_logged_once_and_shown_until_a_success() -> None:
    """A repeated failure is logged once, and so is the recovery, which is not logged without a failure."""
    backoff = Backoff(lambda: 100.0)
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
