"""The results of each receiver: its own counts of requests, joined with the rows in the database."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Engine, case, func, select

from consumer.database.engine import reading
from consumer.demo.receivers import Receiver
from models import ParkedDelivery, Subscription


class RowCounts(NamedTuple):
    """Counts of the rows of one subscription."""

    parked_ever: int = 0  # rows that wait, or waited, for an attempt
    owed: int = 0  # parked or held now
    held: int = 0
    exhausted: int = 0
    retries: int = 0  # attempts after the first
    enabled: bool = True
    error: str = ""  # of an exhausted row


class Figures(NamedTuple):
    """One line of the table. Latencies in seconds, from published to answered with 2xx; None without any."""

    name: str
    event_type: str
    character: str
    published: int
    delivered: int
    duplicates: int
    retried: int
    parked: int
    owed: int
    dead: int
    held: int
    waiting: int  # parked or held in the database; a part of `owed`
    unverified: int
    enabled: bool
    error: str
    p50: float | None
    p95: float | None


def stored(engine: Engine) -> dict[int, RowCounts]:
    """Counts of the rows in `webhook_deliveries`, by subscription id."""
    row = ParkedDelivery
    # An exhausted row with one attempt never waited: its first answer was final.
    waited = func.count(case(((row.status != "exhausted") | (row.attempt > 1), row.id)))
    retries = func.sum(row.attempt) - func.count(case((row.attempt > 0, row.id)))
    statement = select(
        row.subscription_id, row.status, func.count(), waited, retries, func.max(row.last_error)
    ).group_by(row.subscription_id, row.status)
    result: dict[int, RowCounts] = {}
    with reading(engine) as connection:
        for key, enabled in connection.execute(select(Subscription.id, Subscription.enabled)):
            result[key] = RowCounts(enabled=bool(enabled))
        for key, status, count, parked, again, error in connection.execute(statement):
            before = result.get(key, RowCounts())
            result[key] = before._replace(
                parked_ever=before.parked_ever + parked,
                owed=before.owed + (count if status in {"parked", "held"} else 0),
                held=before.held + (count if status == "held" else 0),
                exhausted=before.exhausted + (count if status == "exhausted" else 0),
                retries=before.retries + again,
                error=(error or "") if status == "exhausted" else before.error,
            )
    return result


def figures(receivers: Iterable[Receiver], rows: Mapping[int, RowCounts]) -> list[Figures]:
    """Join requests and rows. An event is owed if it was published and is neither delivered nor given up."""
    return [_figures(receiver, rows.get(receiver.subscription_id, RowCounts())) for receiver in receivers]


def _figures(receiver: Receiver, row: RowCounts) -> Figures:
    delivered = len(receiver.answered)
    latencies = sorted(each.latency for each in list(receiver.deliveries))
    # A disabled subscription matches no new events: only its stored deliveries are owed.
    owed = max(0, receiver.published - delivered - row.exhausted) if row.enabled else row.owed
    return Figures(
        name=receiver.name,
        event_type=receiver.event_type,
        character=receiver.character,
        published=receiver.published,
        delivered=delivered,
        duplicates=receiver.answered.total() - delivered,
        # A receiver that refuses connections sees no retries; the database counts them.
        retried=receiver.requests - len(receiver.asked) if receiver.behaviour else row.retries,
        parked=row.parked_ever,
        owed=owed,
        dead=row.exhausted,
        held=row.held,
        waiting=row.owed,
        unverified=receiver.unverified,
        enabled=row.enabled,
        error=row.error,
        p50=percentile(latencies, 0.5),
        p95=percentile(latencies, 0.95),
    )


def percentile(values: Sequence[float], part: float) -> float | None:
    """The value that a `part` (0 to 1) of the sorted `values` does not exceed; None if there are none."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else None


def beside(receivers: Iterable[Receiver], moment: float) -> tuple[float | None, float | None]:
    """The receivers' p95 latency (seconds) for events published before, and after, `moment` (monotonic)."""
    before: list[float] = []
    after: list[float] = []
    for receiver in receivers:
        for each in list(receiver.deliveries):
            (before if each.at - each.latency < moment else after).append(each.latency)
    return percentile(sorted(before), 0.95), percentile(sorted(after), 0.95)
