"""One action on one subscription or on many, each in a transaction of its own, for the API and the console."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from consumer.errors import DatabaseUnavailable, NotFound, WebhooksError
from consumer.ops.changes import Changes
from consumer.subscriptions.subscribed import Mode

log = structlog.get_logger(__name__)

Action = Literal["enable", "disable", "pause", "resume", "remove"]
Result = Literal["done", "not_found", "refused", "failed"]
SECONDS = 20.0  # after which no further subscription is begun


class Outcome(NamedTuple):
    """What an action has done to a subscription; `why` not, if it is not `done`; the `state` it is in after it.

    `not_found`: it is absent, or another tenant's. `failed` may succeed later.
    """

    subscription_id: int
    result: Result
    state: Mode | None = None
    why: str | None = None


def act(
    changes: Changes, action: Action, subscription_id: int, reason: str | None = None, *, give_up: bool = False
) -> Mode | None:
    """Do it, for this `reason` if it disables or pauses; `give_up` as in `Changes.remove`. Returns the state after it.

    Raises as the functions of `Changes`.
    """
    match action:
        case "remove":
            changes.remove(subscription_id, give_up=give_up)
            return None
        case "pause":
            return changes.pause(subscription_id, reason).after.mode
        case "resume":
            return changes.resume(subscription_id).after.mode
    enabled = action == "enable"
    return changes.set_enabled(subscription_id, enabled, None if enabled else reason).after.mode


def act_on_all(
    changes: Changes,
    action: Action,
    ids: Iterable[int],
    reason: str | None = None,
    *,
    give_up: bool = False,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Do it to each of these subscriptions, in this order, as `act` does; none stops the others, and SECONDS all."""
    end = monotonic() + SECONDS
    for each in dict.fromkeys(ids):
        if monotonic() >= end:
            yield Outcome(each, "failed", why="the others have taken too long; try again")
            continue
        try:
            yield Outcome(each, "done", act(changes, action, each, reason, give_up=give_up))
        except NotFound:
            yield Outcome(each, "not_found")
        except (DatabaseUnavailable, SQLAlchemyError):
            log.exception("a change has failed in the database", subscription_id=each)
            yield Outcome(each, "failed", why="the database has failed or was too slow; try again")
        except WebhooksError as error:
            yield Outcome(each, "refused", why=str(error))
