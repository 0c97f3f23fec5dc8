"""A Settling on a real ledger, with one subscription and requests that end when the test says so."""

from requests import RequestException, Response
from sqlalchemy import Engine, select

from consumer.delivery.delivery import Delivery, OpenRecord, StoredRow
from consumer.delivery.failing import Failing
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.outcome import Outcome
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.ledger.rows import AttemptFailure, OrderingKey
from consumer.matching.selection import Budget
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Batch, Endpoint
from consumer.telemetry.metrics import Metrics
from models import Subscription
from tests.delivery.store_kit import NOW, Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL, make_event, parked
from tests.simulation.transport import Hopeless

TOOK = 0.25
SHORT, LONG = 5.0, 300.0
ROW = ("status", "attempt", "next_attempt_at", "last_status", "last_error")
BOOM = AttemptFailure("boom", 500, None, NOW - 60)


class Desk(Store):
    """A Settling on a real ledger, with one subscription."""

    def __init__(self, engine: Engine, batch: Batch | None = None, pause_after: float = 0.0) -> None:
        super().__init__(engine)
        self.metrics = Metrics()
        self.lanes = Lanes(100)
        self.memory = Memory()
        self.taken_up = TakenUp(self.memory)
        self.budget = Budget(self.monotonic)
        self.revoked: set[TopicPartition] = set()  # partitions that another worker owns
        self.settling = Settling(
            self.lanes,
            self.parking,
            Failing(self.notes, GROUP, pause_after),
            self.metrics,
            self.taken_up,
            self.budget,
            schedule=(SHORT, LONG),
            jitter=0.0,
            in_memory=10.0,
            operations_topic="operations",
            owns=lambda topic_partition: topic_partition not in self.revoked,
            report=self._report,
            report_answer=lambda delivery, result, *_: self.answers.append((delivery.attempts + 1, result.status_code)),
            clock=self.clock,
            monotonic=self.monotonic,
        )
        self.subscription = repository.add(engine, URL, "user.created", ordering="key")
        self.endpoint = Endpoint(self.subscription, URL, DEFAULT, batch=batch)
        # Offset, attempts, status, outcome of the delivery, end time and seconds of each attempt.
        self.reported: list[tuple[int, int, int | None, str, float, float]] = []

        self.answers: list[tuple[int, int]] = []  # attempt and status of each answer that was reported

    def _report(self, delivery: Delivery, what: str, outcome: Outcome, at: float, seconds: float) -> None:
        offset = delivery.event.record.offset
        self.reported.append((offset, delivery.attempts, outcome.status, what, at, seconds))

    def record(self, offset: int = 0, deliveries: int = 1) -> OpenRecord:
        """A record with this many deliveries."""
        return OpenRecord(self.settled.append, offset, deliveries)

    def start(self, origin: OpenRecord | StoredRow | None = None, attempts: int = 0, offset: int = 0) -> Delivery:
        """A delivery with an open request, after this many attempts."""
        return self.open(self.delivery(origin, attempts, offset))

    def delivery(
        self,
        origin: OpenRecord | StoredRow | None = None,
        attempts: int = 0,
        offset: int = 0,
        *,
        partition: int = 0,
        key: bytes | None = None,
        topic: str = "t",
    ) -> Delivery:
        """A delivery after this many unanswered attempts. With a key it is ordered."""
        event = make_event(offset, topic=topic, partition=partition, key=key)
        ordering_key = None if key is None else OrderingKey(self.subscription, topic, partition, key.decode())
        delivery = Delivery(event, self.lanes.lane(self.endpoint), origin or self.record(offset), ordering_key)
        delivery.attempts = attempts
        delivery.first = delivery.last = BOOM if attempts else None
        return delivery

    def enqueue(self, *deliveries: Delivery) -> None:
        """Queue deliveries."""
        for delivery in deliveries:
            self.lanes.enqueue(delivery, self.monotonic.now)

    def open(self, *deliveries: Delivery) -> Delivery:
        """Open one request for all deliveries. Returns the delivery that represents it."""
        self.enqueue(*deliveries)
        return self.go_on(deliveries[0])

    def go_on(self, delivery: Delivery, seconds: float = 0.0) -> Delivery:
        """Open the delivery's next request, after so many seconds."""
        self.monotonic.now += seconds
        self.lanes.wake(self.monotonic.now)
        assert self.lanes.next(self.monotonic.now) is delivery
        delivery.started_at = self.monotonic.now - TOOK
        for each in delivery.batch():
            if isinstance(each.origin, OpenRecord):
                each.origin.started = True
        return delivery

    def end(self, delivery: Delivery, result: Response | RequestException) -> None:
        """End its request; Hopeless: none could be built."""
        self.lanes.finished(delivery.lane)
        if isinstance(result, Hopeless):
            for each in delivery.split():
                self.settling.on_undeliverable(each, str(result))
        else:
            self.settling.on_result(delivery, result)

    def due_row(self, attempts: int = 1, replay: int = 0) -> Delivery:
        """A stored row with an open request."""
        return self.open(self.row(attempts, replay=replay))

    def row(self, attempts: int = 1, offset: int = 0, replay: int = 0, schedule_start: int = 0) -> Delivery:
        """A stored row that has been taken up."""
        event = make_event(offset)
        row = parked(event, self.subscription, NOW, attempt=attempts, replay=replay, schedule_start=schedule_start)
        self.others_park(row._replace(first=BOOM, last=BOOM))
        found = max(self.rows("id"))
        self.taken_up.add(found[0], ("t", 0, self.subscription), event)
        return self.delivery(StoredRow(found[0], schedule_start), attempts, offset)

    def results(self) -> list[tuple[object, ...]]:
        """Status, attempts, seconds until the next attempt, last status, last error of each row."""
        return self.seconds(*ROW)

    def waiting(self) -> list[float]:
        """Seconds until each retry in memory."""
        return [due - self.monotonic.now for lane in self.lanes for due, _, _ in lane.waiting]

    @property
    def opens_in(self) -> float | None:
        """Seconds until the present lane's circuit breaker allows a request; None if it is closed."""
        until = self.lanes.lane(self.endpoint).breaker.open_until
        return None if until is None else until - self.monotonic.now

    def disabled(self) -> str | None:
        """Why the subscription is disabled; None if it is not."""
        self.write_notes()
        with self.engine.connect() as connection:
            return connection.scalar(select(Subscription.disabled_reason).where(Subscription.enabled == 0))


def response(status: int, **headers: str) -> Response:
    """An answer with this status."""
    result = Response()
    result.status_code = status
    result.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return result
