"""The results of each receiver, its own requests joined with the database, and the claims that they prove."""

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlalchemy import Engine, func, select

from consumer.database.engine import reading
from consumer.demo.receivers import DemoReceiver
from models import ParkedDelivery, Subscription

UNDECODABLE = b'{"id": 124, "name": "Joh'  # the one record of the demo that is not an event
_OK = 200


class Figures:
    """One line of the table. `rows` counts the stored deliveries of each status. Latencies are in seconds."""

    def __init__(self, receiver: DemoReceiver, rows: Counter[str], *, enabled: bool) -> None:
        self.name, self.character, self.enabled = receiver.name, receiver.character, enabled
        self.published, self.unverified = receiver.published, receiver.unverified
        seen = list(receiver.seen)
        answered = {each.webhook_id for each in seen if each.status == _OK}
        self.delivered = len(answered)
        self.retried = len(seen) - len({each.webhook_id for each in seen})
        self.latencies = sorted(each.latency for each in seen if each.status == _OK and each.latency is not None)
        self.dead, self.held = rows["exhausted"], rows["held"]
        self.parked = rows.total() - self.dead  # those that wait, or waited, in the database
        self.waiting = rows["parked"] + self.held
        # A disabled subscription matches no new events: only its stored deliveries are owed.
        self.owed = max(0, self.published - self.delivered - self.dead) if enabled else self.waiting
        # Nothing is owed, or the receiver has taken nothing and all that is owed is stored.
        self.at_rest = self.owed == (0 if self.delivered else self.waiting)

    def percentile(self, part: float = 0.95) -> float:
        """The latency that a `part` (0 to 1) of the deliveries does not exceed; 0 without any."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * part))] if self.latencies else 0.0

    def duration(self, part: float = 0.95) -> str:
        """The percentile as text: `300 ms`, `1.5 s`, or `-` without any."""
        seconds = self.percentile(part)
        return "-" if not self.latencies else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def figures(engine: Engine, receivers: Sequence[DemoReceiver]) -> list[Figures]:
    """The figures of each receiver, now."""
    key, status = ParkedDelivery.subscription_id, ParkedDelivery.status
    rows: dict[int, Counter[str]] = {each.subscription_id: Counter() for each in receivers}
    with reading(engine) as connection:
        enabled = set(connection.scalars(select(Subscription.id).where(Subscription.enabled == 1)))
        for subscription_id, name, count in connection.execute(select(key, status, func.count()).group_by(key, status)):
            rows[subscription_id][name] = count
    return [Figures(each, rows[each.subscription_id], enabled=each.subscription_id in enabled) for each in receivers]


def claims(
    rows: Sequence[Figures], committed: int, end: int, exit_status: int, letters: Sequence[bytes]
) -> Iterator[tuple[str, bool | None]]:
    """The demo's claims about its receivers and records, and whether each is so; None: this run cannot tell.

    Of the records, `committed` of `end` are; `letters` are the dead ones.
    """
    served = [row for row in rows if row.delivered]
    owed, waiting = sum(row.owed for row in served), sum(row.waiting for row in served)
    late = f" Time was up for {owed:,}; {waiting:,} of them are stored." if owed else ""
    counts = ", ".join(f"{row.name} {row.delivered:,} of {row.published:,}" for row in served)
    yield f"Receivers that work, or came back, got their events: {counts}.{late}", bool(served) and owed <= waiting
    wrong = sum(row.unverified for row in rows)
    yield f"Receivers verified the signatures of all requests; {wrong or 'none'} failed.", not wrong
    search, stock, billing = (next(row for row in rows if row.name == name) for name in ("search", "stock", "billing"))
    apart = 0 < search.percentile() < stock.percentile()
    # No cause is named: the figures cannot tell a busy machine from the effect of bad receivers.
    verdict = "Bad receivers slow only themselves" if apart else "Healthy receivers became slower; perhaps by others"
    times = ", ".join(f"{row.name} {row.duration()}" for row in (search, stock, billing))
    yield f"{verdict}. For the same events, p95 from publish to 2xx: {times}.", apart or None
    for row in rows:
        if not row.enabled:
            yield f"{row.name} answered 410: its subscription was switched off at once.", bool(row.dead)
        elif not row.delivered:
            stored = f"{row.waiting:,} of {row.owed:,} owed deliveries are stored"
            yield f"{row.name} ({row.character}): its circuit breaker leaves it alone; {stored}.", row.at_rest or None
    there = list(letters) == [UNDECODABLE]
    place = f"It is {'' if there else 'NOT '}alone on the dead-letter topic, byte for byte"
    yield f"One record is not an event: {UNDECODABLE.decode()}. {place}; those behind it were delivered.", there
    offsets = f"Offsets: {committed:,} of {end:,} records are committed, each after its deliveries were made or stored"
    stopped = f"The worker stopped on SIGTERM with exit status {exit_status}."
    yield f"{offsets}. {stopped}", (committed, exit_status) == (end, 0)
