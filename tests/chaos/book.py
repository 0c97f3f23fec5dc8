"""The book of a chaos run: what was published, what receivers saw, and which rules of the guarantee that breaks.

`Book` judges while the run goes on and when it ends. Times are unix seconds of this machine. The publisher writes
events, the conductor writes disruptions, and one thread alone, the watch, reads requests in and judges.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple

from tests.chaos.tempers import Temper
from tests.end_to_end.webhook_receiver import Request

REBALANCES = "storm"
KEPT = 20  # violations of one rule that are kept word for word
# Commits go out every 250 ms. The rest is for the answer, for the transaction before it, and for a machine whose cores
# are shared by brokers, workers and this: what was done longer ago than this must not be repeated after a kill.
COMMIT_INTERVAL = 0.25 + 0.75
# libcurl sends a request again by itself when a connection that was in use before is reset without an answer. That is
# one attempt; the shortest wait between two is longer than this.
RESENT_WITHIN = 0.15


class Rule(StrEnum):
    """What the guarantee says, as it is checked."""

    LOST = "no event is lost for any subscription"
    ONE_ID = "one webhook-id and one body for each event"
    DUPLICATE = "a delivery is repeated only where a fault explains it"
    STORM = "less than 5 % is repeated in a rebalance storm"
    ORDER = "first deliveries keep the order of their key"
    ATTEMPTS = "no more attempts than the schedule has"
    BACKWARDS = "no offset moves backwards"
    EARLY = "no offset passes a record that is not settled"
    STUCK = "work goes on within 30 s"
    ENDED = "a worker ends as it is told to"


class Violation(NamedTuple):
    """A rule that was broken, and how."""

    rule: Rule
    what: str


@dataclass(frozen=True, slots=True)
class Event:
    """A record that was published. `body` is its value; `owed` is False for one that is no event (a dead letter)."""

    number: int
    type: str
    partition: int
    key: bytes | None
    body: bytes
    owed: bool = True


@dataclass(frozen=True, slots=True)
class Subscription:
    """A path of the receiver that is subscribed to a type; `optional` where it may be disabled meanwhile."""

    id: int
    path: str
    event_type: str
    temper: Temper
    ordered: bool = False
    optional: bool = False


@dataclass(slots=True)
class Disruption:
    """Something that may make workers repeat deliveries and forget attempts.

    What was touched since `since`, and answered before `until`, may be repeated `times` by each disruption, and
    `attempts` of it may be made that nobody counts.
    """

    what: str
    at: float
    since: float
    until: float = inf
    times: int = 1
    attempts: int = 2
    repeated: int = 0


@dataclass(slots=True)
class Story:
    """All requests of one event at one path."""

    first: float
    last: float
    tries: int = 0  # up to the first 2xx
    unanswered: bool = False  # the last one
    accepted: list[float] = field(default_factory=list)
    explained: Counter[int] = field(default_factory=Counter)  # by the index of their disruption


class Book:
    """`attempts` is how many a delivery has; `timeout` and `patience`, the longest wait in memory, are in seconds."""

    def __init__(self, attempts: int, timeout: float, patience: float) -> None:
        self.attempts = attempts
        self.timeout = timeout
        self.patience = patience
        self.events: list[Event] = []
        self.at: dict[tuple[int, int], Event] = {}  # by partition and offset
        self.committed_at: dict[tuple[int, int], float] = {}  # when the watch first saw it
        self.subscriptions: list[Subscription] = []
        self.disruptions: list[Disruption] = []
        self.stories: dict[tuple[str, int], Story] = {}
        self.violations: list[Violation] = []
        self.broken: Counter[Rule] = Counter()
        self.repeated = 0
        self._numbers: dict[bytes, int] = {}
        self._place_of: dict[int, tuple[int, int]] = {}
        self._ids: dict[str, int] = {}
        self._id_of: dict[int, str] = {}
        self._touched: dict[int, list[tuple[float, float]]] = defaultdict(list)  # from, to; by event
        self._before: dict[int, int] = {}  # the event before, of the same type and key
        self._last_of: dict[tuple[str, bytes], int] = {}
        self._read = 0

    # Written by the publisher and the conductor.

    def publish(self, event: Event) -> None:
        """An event is about to be sent to Kafka."""
        if event.key is not None and event.owed:
            line = event.type, event.key
            if line in self._last_of:
                self._before[event.number] = self._last_of[line]
            self._last_of[line] = event.number
        self._numbers[event.body] = event.number
        self.events.append(event)

    def acknowledged(self, event: Event, offset: int) -> None:
        """Kafka has it."""
        self.at[event.partition, offset] = event
        self._place_of[event.number] = event.partition, offset

    def disrupt(self, disruption: Disruption) -> Disruption:
        """Something is about to happen."""
        self.disruptions.append(disruption)
        return disruption

    def violated(self, rule: Rule, what: str) -> None:
        """A rule is broken."""
        self.broken[rule] += 1
        if self.broken[rule] <= KEPT:
            self.violations.append(Violation(rule, what))

    # Written by the watch.

    def read(self, requests: Sequence[Request]) -> None:
        """Judge the requests that have come since the last call."""
        end = len(requests)
        for request in requests[self._read : end]:
            self._take(request)
        self._read = end

    def owed_by(self, event: Event) -> list[Subscription]:
        """The subscriptions that match an event."""
        return [each for each in self.subscriptions if event.owed and each.event_type == event.type]

    def accepted(self, path: str, number: int) -> bool:
        """The event was answered with a 2xx there."""
        story = self.stories.get((path, number))
        return story is not None and bool(story.accepted)

    def missing(self) -> list[tuple[Subscription, Event]]:
        """What was never accepted, and ought to be."""
        return [
            (each, event)
            for event in list(self.events)
            for each in self.owed_by(event)
            if not each.optional and not each.temper.doomed(event.number) and not self.accepted(each.path, event.number)
        ]

    def finish(self, exhausted: Iterable[tuple[int, bytes]]) -> None:
        """The run is over: nothing may be missing, and what was given up is what no attempt could deliver.

        `exhausted` are the rows of that state: subscription and body.
        """
        by_id = {each.id: each for each in self.subscriptions}
        given_up = {(by_id[subscription], self._numbers[body]) for subscription, body in exhausted}
        for subscription, event in self.missing():
            self.violated(Rule.LOST, f"event {event.number} never reached {subscription.path}")
        for subscription, number in given_up:
            if not subscription.temper.doomed(number) and not subscription.optional:
                self.violated(Rule.LOST, f"event {number} was given up for {subscription.path}, which would take it")
        for event in self.events:
            for each in self.owed_by(event):
                if each.temper.doomed(event.number) and (each, event.number) not in given_up:
                    self.violated(Rule.LOST, f"event {event.number} is not stored as given up for {each.path}")
        for disruption in self.disruptions:
            if disruption.what == REBALANCES:
                self._judge_storm(disruption)

    # Judgement of one request.

    def _take(self, request: Request) -> None:
        number = self._numbers.get(request.body)
        if number is None:
            self.violated(Rule.ONE_ID, f"{request.path} got a body that nobody published: {request.body[:80]!r}")
            return
        event = self.events[number]
        if request.path not in {each.path for each in self.owed_by(event)}:
            self.violated(Rule.ONE_ID, f"{request.path} is not subscribed to event {number}")
            return
        self._judge_id(request, number)
        story = self.stories.get((request.path, number))
        if story is None:
            self._judge_order(request, number)
            story = self.stories[request.path, number] = Story(request.at, request.at)
        if not story.accepted and not (story.unanswered and request.at - story.last < RESENT_WITHIN):
            story.tries += 1
            self._judge_attempts(request, number, story)
        story.last, story.unanswered = request.at, request.status is None
        if request.accepted:
            if story.accepted:
                self._judge_duplicate(request, number, story)
            story.accepted.append(request.at)
        open_for = 0.0 if request.accepted else self.patience + (self.timeout if request.status is None else 0.0)
        self._touched[number].append((request.at, request.at + open_for))

    def _judge_id(self, request: Request, number: int) -> None:
        known = self._id_of.setdefault(number, request.webhook_id)
        if known != request.webhook_id:
            self.violated(Rule.ONE_ID, f"event {number} came as {known} and as {request.webhook_id}")
        elif self._ids.setdefault(request.webhook_id, number) != number:
            other = self._ids[request.webhook_id]
            self.violated(Rule.ONE_ID, f"events {other} and {number} both came as {request.webhook_id}")

    def _judge_order(self, request: Request, number: int) -> None:
        before = self._before.get(number)
        subscription = next(each for each in self.subscriptions if each.path == request.path)
        if before is None or not subscription.ordered or self.accepted(request.path, before):
            return
        earlier = self.stories.get((request.path, before))
        if subscription.temper.doomed(before) and earlier is not None:
            forgiven = sum(each.attempts for each in self._during(earlier.first, request.at))
            if earlier.tries >= self.attempts - forgiven:
                return
        self.violated(
            Rule.ORDER, f"{request.path} got event {number} before {before} of the same key {self.events[number].key!r}"
        )

    def _judge_attempts(self, request: Request, number: int, story: Story) -> None:
        allowed = self.attempts + sum(each.attempts for each in self._during(story.first, request.at))
        if story.tries > allowed:
            self.violated(
                Rule.ATTEMPTS, f"event {number} was tried {story.tries} times at {request.path}, allowed {allowed}"
            )

    def _judge_duplicate(self, request: Request, number: int, story: Story) -> None:
        self.repeated += 1
        before = story.accepted[-1]
        latest_first = reversed(list(enumerate(self.disruptions)))
        # What nothing else explains is the storm's.
        for index, each in sorted(latest_first, key=lambda pair: pair[1].what == REBALANCES):
            touched = max((min(end, each.at) for begin, end in self._touched[number] if begin <= each.at), default=0.0)
            if (
                each.at <= request.at
                and before <= each.until
                and max(touched, before) >= each.since
                and story.explained[index] < each.times
            ):
                story.explained[index] += 1
                each.repeated += 1
                return
        self.violated(
            Rule.DUPLICATE,
            f"event {number} came again to {request.path} at {request.at:.3f}, accepted before at {before:.3f}; "
            f"its record in partition {self.events[number].partition} was seen committed at {self._committed(number)}",
        )

    def _committed(self, number: int) -> str:
        place = self._place_of.get(number)
        at = self.committed_at.get(place) if place is not None else None
        return "no time" if at is None else f"{at:.3f}"

    def _during(self, begin: float, end: float) -> list[Disruption]:
        return [each for each in self.disruptions if each.at <= end and each.until >= begin]

    def _judge_storm(self, storm: Disruption) -> None:
        moments = [at for story in self.stories.values() for at in story.accepted]
        delivered = sum(storm.since <= at <= storm.until for at in moments)
        if storm.repeated >= max(1, 0.05 * delivered):
            self.violated(Rule.STORM, f"{storm.repeated} of {delivered} deliveries were repeated")
