"""Leaving the group in an order that librdkafka bears."""

import threading
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException

_QUIET = 0.05  # seconds without a rebalance, after which none is due
_DROPPED = 1000  # records in one round: fetched, not taken in, and the next owner's


def leave(consumer: Consumer, rebalances: Callable[[], int], *, static: bool) -> None:
    """Leave the group and close the consumer; returns when both is done.

    `rebalances` counts the calls of the consumer's rebalance callbacks. A `static` member (it has a group.instance.id)
    closes without leaving: its partitions wait for it.

    What the group gives a member while it closes makes librdkafka wait for ever, with Python's lock in its hands, so
    that no watchdog written in Python sees it (librdkafka's issue 4884; measured with an assignment that was due: 2 of
    220 closings). So the subscription ends first, and what is due is taken and given back before the end begins.
    """
    if not static:
        try:
            consumer.unsubscribe()
        except (KafkaException, RuntimeError):  # after a fatal error, or once closed, there is no group to leave
            consumer.close()
            return
    while True:
        before = rebalances()
        consumer.consume(_DROPPED, _QUIET)
        if rebalances() == before and (static or not consumer.assignment()):
            break
    consumer.close()


def within(seconds: float, name: str, call: Callable[[], object]) -> bool:
    """Make a call that has no time limit of its own, in a thread; whoever owns the consumer waits and calls nothing.

    False if it has not ended by then: it is left to end by itself.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
