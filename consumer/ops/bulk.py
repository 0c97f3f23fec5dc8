"""One action on one subscription or on many, each in a transaction of its own, for the API and the console."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from consumer.errors import Conflict, DatabaseUnavailable, NotFound, WebhooksError
from consumer.ops.changes import Changes
from consumer.subscriptions.subscribed import Subscribed

log = structlog.get_logger(__name__)

Action = Literal["enable", "disable", "pause", "resume", "remove"]
Result = Literal["done", "not_found", "refused", "failed"]
SECONDS = 20.0  # after which no further subscription is begun
# Each gets the id and the reason. `exhaust` removes it, too, and gives up what it is owed.
ACTIONS: Mapping[str, Callable[[Changes, int, str | None], Any]] = {
    "enable": lambda changes, number, _: changes.set_enabled(number, True),
    "disable": lambda changes, number, why: changes.set_enabled(number, False, why),
    "pause": lambda changes, number, why: changes.pause(number, why),
    "resume": lambda changes, number, _: changes.resume(number),
    "remove": lambda changes, number, _: changes.remove(number, give_up=False),
    "exhaust": lambda changes, number, _: changes.remove(number, give_up=True),
}


class Outcome(NamedTuple):
    """The result for a subscription, and `why` it is not `done`.

    `not_found`: it is absent, or another tenant's. `failed` may succeed later.
    """

    subscription_id: int
    result: Result
    why: str | None = None


def act_on_all(
    changes: Changes,
    action: str,
    ids: Iterable[int],
    reason: str | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Do one of ACTIONS to each of these subscriptions. One that fails stops no other, and SECONDS stop all.

    A pause that somebody has made for another reason stays as it is: it is neither replaced nor ended.
    """
    changes = replace(changes, condition=partial(_check, changes.condition, action, reason))
    end = monotonic() + SECONDS
    for each in dict.fromkeys(ids):
        if monotonic() >= end:
            yield Outcome(each, "failed", "the others have taken too long; try again")
            continue
        try:
            ACTIONS[action](changes, each, reason)
            yield Outcome(each, "done")
        except NotFound:
            yield Outcome(each, "not_found")
        except (DatabaseUnavailable, SQLAlchemyError):
            log.exception("a change has failed in the database", subscription_id=each)
            yield Outcome(each, "failed", "the database has failed or was too slow; try again")
        except WebhooksError as error:
            yield Outcome(each, "refused", str(error))


def _check(condition: Callable[[Subscribed], object], action: str, reason: str | None, item: Subscribed) -> None:
    """Raise Conflict for a pause with a reason of its own; failures may have paused it (`probed`)."""
    condition(item)
    if item.paused_at is None or item.probed or item.paused_reason in {None, reason}:
        return
    if action == "pause":
        raise Conflict(f"subscription {item.id} was {item.pause} already; nothing is changed")
    if action == "resume":
        raise Conflict(f"subscription {item.id} is {item.pause}; give that reason, or resume it by itself")
