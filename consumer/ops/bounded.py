"""Runs a blocking call in a thread of its own, so that the caller waits for a limited time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaException
from sqlalchemy.exc import SQLAlchemyError

from consumer.database.engine import unavailable
from consumer.errors import Unavailable, WebhooksError

T = TypeVar("T")


def begin(job: Callable[[], T]) -> Callable[[float], T]:
    """Start `job` in a thread. The returned function waits for its result, and returns it or raises its error.

    It raises Unavailable if the job takes longer than the given seconds; the thread then ends with the job.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(job())
        except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
            done.set_exception(error)

    def wait(seconds: float) -> T:
        try:
            return done.result(seconds)
        except TimeoutError:
            if done.done():  # the job's own
                raise
            raise Unavailable(f"no answer within {round(seconds, 1):g} s") from None

    threading.Thread(target=work, daemon=True).start()
    return wait


def within(job: Callable[[], T], seconds: float) -> T:
    """The result of `job`, as `begin` gives it."""
    return begin(job)(seconds)


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
