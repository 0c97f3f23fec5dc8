"""Runs blocking calls in a thread of their own, so that the caller waits for a limited time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from confluent_kafka import KafkaException
from sqlalchemy.exc import SQLAlchemyError

from consumer.database.engine import unavailable
from consumer.errors import Unavailable, WebhooksError

T = TypeVar("T")


def begin(*jobs: Callable[[], T]) -> list[Callable[[float], T]]:
    """Start `jobs` in a thread, one after the other.

    Each has a function, which waits for its result, and returns it or raises its error. It raises Unavailable if that
    takes longer than the given seconds; the thread then ends with the jobs.
    """
    results = [Future[T]() for _ in jobs]

    def work() -> None:
        for job, done in zip(jobs, results, strict=True):
            try:
                done.set_result(job())
            except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
                done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return [partial(_result, done) for done in results]


def within(job: Callable[[], T], seconds: float) -> T:
    """The result of `job`, as `begin` gives it."""
    return begin(job)[0](seconds)


def _result(done: Future[T], seconds: float) -> T:
    try:
        return done.result(seconds)
    except TimeoutError:
        if done.done():  # the job's own
            raise
        raise Unavailable(f"no answer within {round(seconds, 1):g} s") from None


def reason_of(error: Exception) -> str | None:
    """The reason on one line, for errors of Kafka, the database and settings; None for other errors, which are bugs."""
    match error:
        case WebhooksError():
            return str(error)
        case KafkaException():
            return str(error.args[0].str())
        case SQLAlchemyError():
            return str(unavailable(error) or type(error).__name__)
    return None
