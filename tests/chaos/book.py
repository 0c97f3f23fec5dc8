"""The book of a chaos run: published events, received requests, and violations of the guarantee's rules.

`Book` judges during the run and at its end. Times are unix seconds of this machine. The publisher writes events, the
conductor writes disruptions, and only one thread, the watch, reads requests and judges.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple

from tests.chaos.tempers import Temper
from tests.end_to_end.webhook_receiver import Request

REBALANCES, NO_BROKER = "storm", "broker"
GONE_STATUS = 410
NOWHERE = (-1, -1)  # a place in no partition
KEPT = 20  # violations of one rule that are kept as text
# Commits go out every 250 ms. The rest is for the answer, for the transaction before it, and for a machine whose cores
# brokers, workers and this process share. Work completed longer ago must not be repeated after a kill.
COMMIT_INTERVAL = 0.25 + 0.75
CURSORS_SAVED = 1.0  # seconds between two saves of the positions of cursors


class Rule(StrEnum):
    """The guarantee's rules, as they are checked."""

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
    ANNOUNCED = "what is given up is announced, under one id"
    UNPROVEN = "the audit finds what became of each delivery"
    PAUSED = "what is published during a pause is not sent before its end"


class Violation(NamedTuple):
    """A violated rule, and the details."""

    rule: Rule
    what: str


@dataclass(frozen=True, slots=True)
class Event:
    """A published record. `body` is its value. `owed` is False if it is not a valid event (a dead letter)."""

    number: int
    at: float
    type: str
    partition: int
    key: bytes | None
    body: bytes
    owed: bool = True
    readable: bool = True

    @property
    def letter(self) -> bytes | None:
        """The value of its dead letter; None if the record is unreadable."""
        return self.body if self.readable else None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A path of the receiver, subscribed to a type. If `optional`, it may be disabled at times.

    If `batched`, it gets CloudEvents, several in a request. Its filter wants each event of its type whose number is
    divisible by `every`.
    """

    id: int
    path: str
    event_type: str
    temper: Temper
    ordered: bool = False
    optional: bool = False
    batched: bool = False
    every: int = 1


@dataclass(slots=True)
class Replay:
    """A path gets events once more: those from begin to before end, by partition."""

    path: str
    spans: Mapping[int, tuple[int, int]]
    cancelled: bool = False

    def sends(self, path: str, place: tuple[int, int]) -> bool:
        """Whether it sends the record at this partition and offset to this path."""
        begin, end = self.spans.get(place[0], (0, 0))
        return path == self.path and begin <= place[1] < end


@dataclass(slots=True)
class Disruption:
    """A fault that may make workers repeat deliveries and forget attempts.

    Each disruption may repeat `times` a delivery accepted between `since` and `until`, or whose record was not settled
    by `since`, and may add `attempts` that no worker counts. The same applies to a stored delivery accepted from
    `unwritten_since` on, since its row may not say so yet, and to a delivery of a cursor from a save before that on: of
    these it may repeat `most_of_cursors`. With a `place`, only this record is affected. A `replay` repeats its events.
    """

    what: str
    at: float
    since: float
    unwritten_since: float
    until: float = inf
    times: int = 1
    attempts: int = 2
    place: tuple[int, int] | None = None
    replay: Replay | None = None
    most_of_cursors: float = inf
    of_cursors: int = 0
    repeated: int = 0


class Repeat(NamedTuple):
    """A delivery that came again, at `at`, after it was accepted, and the cause."""

    at: float
    before: float
    partition: int
    cause: str


@dataclass(slots=True)
class Story:
    """All requests of one event at one path."""

    first: float
    tries: int = 0  # until the first 2xx
    requests: int = 0  # in all, with repetitions by the sender
    unanswered: str = ""  # timestamp of the last one, if unanswered
    gone: bool = False  # a request was answered 410
    accepted: list[float] = field(default_factory=list)
    accepted_signed_at: int = 0  # timestamp of the last one
    explained: Counter[int] = field(default_factory=Counter)  # by index of the disruption


def alone(request: Request) -> list[Request]:
    """Split a batch of CloudEvents into a request for each event, with its id and its data as body."""
    return [
        request._replace(webhook_id=each["id"], body=json.dumps(each["data"]).encode())
        for each in json.loads(request.body)
    ]


class Book:
    """`attempts` is the number of attempts of a delivery."""

    def __init__(self, attempts: int, hung_up: Callable[[int, str, int], bool] = lambda *_: False) -> None:
        """`hung_up`: whether a worker waited too long for the answer to the request of an event to a subscription.

        The request is known by its `webhook-timestamp`. A correct worker repeats such a delivery. It happens where
        receivers and workers share a busy machine.
        """
        self.attempts = attempts
        self._hung_up = hung_up
        self.events: list[Event] = []
        self.at: dict[tuple[int, int], Event] = {}  # by partition and offset
        self.committed_at: dict[tuple[int, int], float] = {}  # when the watch saw it
        self.stored_at: dict[tuple[int, int, int], float] = {}  # by partition, offset and subscription
        self.subscriptions: list[Subscription] = []
        self.disruptions: list[Disruption] = []
        self.away: list[list[float]] = []  # from, to: optional subscriptions may be disabled
        self.paused: dict[str, list[list[float]]] = {}  # by path, from, to: events published and sent between are wrong
        # Covering cursors, as last seen, by id: subscription, partition, first offset and end.
        self.cursors: dict[int, tuple[int, int, int, float]] = {}
        self.stories: dict[tuple[str, int], Story] = {}
        self.violations: list[Violation] = []
        self.broken: Counter[Rule] = Counter()
        self.repeats: list[Repeat] = []
        self._numbers: dict[bytes, int] = {}
        self._place_of: dict[int, tuple[int, int]] = {}
        self._ids: dict[str, int] = {}
        self._id_of: dict[int, str] = {}
        self._before: dict[int, int] = {}  # the previous event of its type and key
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
        """Kafka has acknowledged it."""
        self.at[event.partition, offset] = event
        self._place_of[event.number] = event.partition, offset

    def disrupt(self, disruption: Disruption) -> Disruption:
        """A fault is about to happen."""
        self.disruptions.append(disruption)
        return disruption

    def violated(self, rule: Rule, what: str) -> None:
        """A rule was violated."""
        self.broken[rule] += 1
        if self.broken[rule] <= KEPT:
            self.violations.append(Violation(rule, what))

    # Written by the watch.

    def read(self, requests: Sequence[Request]) -> None:
        """Judge the requests that have come since the last call."""
        end = len(requests)
        batched = {each.path for each in self.subscriptions if each.batched}
        for request in requests[self._read : end]:
            for each in alone(request) if request.path in batched else (request,):
                self._take(each)
        self._read = end

    def owed_by(self, event: Event) -> list[Subscription]:
        """The subscriptions that match an event."""
        return [
            each
            for each in self.subscriptions
            if event.owed and each.event_type == event.type and event.number % each.every == 0
        ]

    def attempts_of(self, path: str) -> int:
        """The attempts of a delivery to this path: with batches one more, alone, after a shared last attempt."""
        return self.attempts + any(each.batched for each in self.subscriptions if each.path == path)

    def accepted(self, path: str, number: int) -> bool:
        """The event was answered with a 2xx there."""
        story = self.stories.get((path, number))
        return story is not None and bool(story.accepted)

    def missing(self) -> list[tuple[Subscription, Event]]:
        """Deliveries that were owed and never accepted."""
        return [
            (each, event)
            for event in list(self.events)
            for each in self.owed_by(event)
            if not each.temper.doomed(event.number)
            and not self.accepted(each.path, event.number)
            and not (each.optional and self.excused(each, event))
        ]

    def excused(self, subscription: Subscription, event: Event) -> bool:
        """It was answered 410, or its subscription may have been disabled while it was on its way."""
        story = self.stories.get((subscription.path, event.number))
        place = self._place_of.get(event.number)
        settled_at = self.committed_at.get(place, inf) if place is not None else inf
        return (story is not None and story.gone) or any(
            begin <= settled_at and event.at <= end for begin, end in self.away
        )

    def finish(self, exhausted: Iterable[tuple[int, bytes]], announced: Counter[tuple[int, str]]) -> None:
        """The run is over: no delivery may be missing, and only deliveries that no attempt could make may be given up.

        `exhausted` are the rows in that state: subscription and body. `announced` has, by subscription and webhook-id,
        the number of operational events for it.
        """
        by_id = {each.id: each for each in self.subscriptions}
        given_up = Counter((by_id[subscription], self._numbers[body]) for subscription, body in exhausted)
        for subscription, event in self.missing():
            self.violated(Rule.LOST, f"event {event.number} never reached {subscription.path}")
        self._judge_replays()
        for (subscription, number), rows in given_up.items():
            self._judge_given_up(subscription, number, rows, announced[subscription.id, self._id_of.get(number, "")])
        for event in self.events:
            for each in self.owed_by(event):
                if each.temper.doomed(event.number) and (each, event.number) not in given_up:
                    self.violated(Rule.LOST, f"event {event.number} is not stored as given up for {each.path}")
        for disruption in self.disruptions:
            if disruption.what == REBALANCES:
                self._judge_storm(disruption)

    # Judgement of one request, or of each event in a batch as if it had a request of its own.

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
        for begin, end in self.paused.get(request.path, ()):
            if begin < event.at and request.at < end:
                self.violated(Rule.PAUSED, f"{request.path} got event {number} at {request.at:.3f}, {event}")
        story = self.stories.get((request.path, number))
        if story is None:
            self._judge_order(request, number)
            story = self.stories[request.path, number] = Story(request.at)
        # A request is repeated unchanged when a connection that was used before is reset without an answer: that is
        # one attempt. The next attempt has another timestamp, unless both fall into one second.
        signed_at = request.headers["webhook-timestamp"]
        story.requests += 1
        if not story.accepted and signed_at != story.unanswered:
            story.tries += 1
            self._judge_attempts(request, number, story)
        story.unanswered = signed_at if request.status is None else ""
        story.gone = story.gone or request.status == GONE_STATUS
        if request.accepted:
            if story.accepted:
                self._judge_duplicate(request, number, story)
            story.accepted.append(request.at)
            story.accepted_signed_at = int(signed_at)

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
            forgiven = sum(each.attempts for each in self._during(earlier.first, request, before))
            if earlier.requests >= self.attempts - forgiven:
                return
        self.violated(
            Rule.ORDER, f"{request.path} got event {number} before {before} of the same key {self.events[number].key!r}"
        )

    def _judge_attempts(self, request: Request, number: int, story: Story) -> None:
        forgotten = sum(each.attempts for each in self._during(story.first, request, number))
        allowed = self.attempts_of(request.path) + forgotten
        if story.tries > allowed:
            self.violated(
                Rule.ATTEMPTS,
                f"event {number} was tried {story.tries} times at {request.path}, allowed {allowed}, "
                f"from {story.first:.3f} to {request.at:.3f}",
            )

    def _judge_duplicate(self, request: Request, number: int, story: Story) -> None:
        before = story.accepted[-1]
        partition = self.events[number].partition
        replays = sum(each.replay is not None for each in self._during(0.0, request, number))
        by_cursor = replays > 0 or self._is_covered(request.path, number)
        stored = by_cursor or self._stored_at(request.path, number) < inf
        latest_first = reversed(list(enumerate(self.disruptions)))
        # A replay or a storm explains only repeats without another cause.
        for index, each in sorted(latest_first, key=lambda pair: (pair[1].what == REBALANCES, bool(pair[1].replay))):
            since = (each.unwritten_since if stored else each.since) - by_cursor * CURSORS_SAVED
            if (
                each.at <= request.at
                and not (by_cursor and each.of_cursors >= each.most_of_cursors)  # then an earlier one has to explain it
                and self._concerns(each, request.path, number)
                and before <= each.until
                and story.explained[index] < each.times * (1 if each.replay else 1 + replays)
                and max(before, self._settled(self.events[number], each.at)) >= since
            ):
                story.explained[index] += 1
                each.repeated += 1
                each.of_cursors += by_cursor
                self.repeats.append(Repeat(request.at, before, partition, each.what))
                return
        if self._hung_up(self._id(request.path), request.webhook_id, story.accepted_signed_at):
            self.repeats.append(Repeat(request.at, before, partition, "time-out"))
            return
        self.repeats.append(Repeat(request.at, before, partition, "nothing"))
        self.violated(
            Rule.DUPLICATE,
            f"event {number} came again to {request.path} at {request.at:.3f}, accepted before at {before:.3f}; "
            f"its record in partition {self.events[number].partition} was seen committed at {self._committed(number)}",
        )

    def _settled(self, event: Event, by: float) -> float:
        """When the last of a record's deliveries was accepted or stored; `by` if one of them was not by then."""
        last = 0.0
        committed_at = self.committed_at.get(self._place_of.get(event.number, NOWHERE), inf)  # a cursor may cover it
        for each in self.owed_by(event):
            if each.optional and self.excused(each, event):
                continue
            story = self.stories.get((each.path, event.number))
            stored_at = self._stored_at(each.path, event.number)
            settled = min([*(story.accepted[:1] if story else ()), stored_at, committed_at])
            last = max(last, min(settled, by))
        return last

    def _stored_at(self, path: str, number: int) -> float:
        return self.stored_at.get((*self._place_of.get(number, NOWHERE), self._id(path)), inf)

    def by_cursors(self) -> int:
        """The number of deliveries that cursors have covered."""
        ids = {event: {each.id for each in self.owed_by(event)} for event in self.events}
        ends = {partition: offset + 1 for partition, offset in sorted(self.at)}
        return sum(
            subscription in ids.get(self.at[partition, offset], ())
            for subscription, partition, first, end in self.cursors.values()
            for offset in range(first, int(min(end, ends[partition])))
        )

    def _is_covered(self, path: str, number: int) -> bool:
        """A cursor has covered it for this path."""
        here = self._id(path), *self._place_of.get(number, NOWHERE)
        return any(here[:2] == each[:2] and each[2] <= here[2] < each[3] for each in self.cursors.values())

    def _id(self, path: str) -> int:
        return next(each.id for each in self.subscriptions if each.path == path)

    def _committed(self, number: int) -> str:
        place = self._place_of.get(number)
        at = self.committed_at.get(place) if place is not None else None
        return "no time" if at is None else f"{at:.3f}"

    def _during(self, begin: float, request: Request, number: int) -> list[Disruption]:
        return [
            each
            for each in self.disruptions
            if each.at <= request.at and each.until >= begin and self._concerns(each, request.path, number)
        ]

    def _concerns(self, disruption: Disruption, path: str, number: int) -> bool:
        place = self._place_of.get(number, NOWHERE)
        if disruption.replay is not None:
            return disruption.replay.sends(path, place)
        return disruption.place is None or disruption.place == place

    def _judge_replays(self) -> None:
        """Each event comes once, and once more for each replay that was not cancelled."""
        owed = Counter[tuple[str, int]]()
        for replay in [each.replay for each in self.disruptions if each.replay and not each.replay.cancelled]:
            for partition, span in replay.spans.items():
                events = [self.at[partition, offset] for offset in range(*span)]
                owed.update((replay.path, each.number) for each in events if each.owed)
        for (path, number), times in owed.items():
            (one,) = [each for each in self.subscriptions if each.path == path]
            story = self.stories.get((path, number))
            came = 0 if story is None else len(story.accepted)
            if one in self.owed_by(self.events[number]) and not one.temper.doomed(number) and came <= times:
                self.violated(Rule.LOST, f"event {number} came {came} times to {path}, with {times} replays")

    def _judge_given_up(self, subscription: Subscription, number: int, rows: int, announcements: int) -> None:
        what = f"event {number} was given up for {subscription.path}"
        if not subscription.temper.doomed(number) and not self.stories[subscription.path, number].gone:
            self.violated(Rule.LOST, f"{what}, which would take it")
        if announcements != rows:  # that of a replay is another delivery
            self.violated(Rule.ANNOUNCED, f"{what}: {announcements} announcements of {rows} rows")

    def _judge_storm(self, storm: Disruption) -> None:
        brokers = [each for each in self.disruptions if each.what == NO_BROKER]
        if any(each.at <= storm.until and storm.at <= each.until for each in brokers):
            return  # no commit was possible
        moments = [at for story in self.stories.values() for at in story.accepted]
        delivered = sum(storm.since <= at <= storm.until for at in moments)
        if storm.repeated >= max(1, 0.05 * delivered):
            self.violated(Rule.STORM, f"{storm.repeated} of {delivered} deliveries were repeated")
