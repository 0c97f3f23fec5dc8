"""Leaves the consumer group in an order that does not hang librdkafka."""

import threading
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException

_QUIET = 0.05  # after so many seconds without a rebalance, none is due
_DROPPED = 1000  # records that one call discards; the partitions' next owners read them


def leave(consumer: Consumer, rebalances: Callable[[], int], *, static: bool) -> None:
    """Leave the group and close the consumer; returns when both are done.

    `rebalances` counts the calls of the consumer's rebalance callbacks. A `static` member (it has a group.instance.id)
    closes without leaving: its partitions wait for it.

    If the group assigns partitions to a member while it closes, librdkafka waits for ever, holding the GIL, so that no
    watchdog written in Python notices (librdkafka's issue 4884; measured with an assignment due: 2 of 220 closings).
    So the consumer unsubscribes first, and takes and gives back any due assignment before it closes.
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
    """Run a call that has no time limit of its own in a thread; the consumer's owner waits and makes no other call.

    False if the call has not ended after `seconds`: it is left to end by itself.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
