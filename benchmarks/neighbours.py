"""Good subscriptions beside bad ones: the latency of the good ones alone and beside them, in one run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.bad_receivers import BadReceiver, Kind, Second, asking, bad_receiver, certificates
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.waiting import eventually

GOOD = {"/fast": 0.0, "/ordinary": 0.05}  # seconds to answer, by path
FAN_OUT = 10  # bad subscriptions of one event
RATE = 200.0  # events a second
# Short, so that a few seconds show both sides of a time-out; the second setting ends a hung name.
PATIENCE = {"WEBHOOK_TIMEOUT": "3s", "WEBHOOK_CONNECT_TIMEOUT": "3s"}
LATEST = 30.0  # seconds to wait for an event


class Names(StrEnum):
    """Bad receivers that are only a name."""

    UNKNOWN = "unknown-name"
    HUNG = "hung-name"  # the name server does not answer


class Company(StrEnum):
    """How bad subscriptions share the load with good ones."""

    SAME_EVENTS = "same events"  # each event goes to the good ones and to FAN_OUT bad ones
    OWN_EVENTS = "own events"  # as many further events, each to one bad subscription only


class Neighbours(NamedTuple):
    """The URLs of bad subscriptions, the worker's settings to reach them, and the host name of good ones."""

    urls: Sequence[str]
    requests: Callable[[], int]
    settings: Mapping[str, str]
    altered: str = ""  # code that a worker runs first
    good_host: str = "127.0.0.1"


class Latencies(NamedTuple):
    """Seconds from publishing to the request, sorted; for an event that never arrived, the time so far."""

    alone: list[float]
    beside: list[float]


class Meeting(NamedTuple):
    """The result: `good` by path, and the requests that the bad receivers got."""

    good: Mapping[str, Latencies]
    requests: int


@contextmanager
def neighbours(bad: Kind | Names, number: int, directory: Path) -> Iterator[Neighbours]:
    """So many receivers that misbehave in one way."""
    if isinstance(bad, Names):
        with bad_receiver(Kind.NAMES) as server:
            urls = [f"http://{bad}-{place}.test/" for place in range(number)]
            yield Neighbours(urls, server.requests, PATIENCE, asking(server), "receiver.good.test")
        return
    settings, options = dict(PATIENCE), list[str]()
    if bad is Kind.TLS_CLOSE:
        made = certificates(directory)
        settings["SSL_CERT_FILE"], options = str(made.trusted), [str(made.shown)]
    with bad_receiver(bad, *options) as receiver:
        yield Neighbours([receiver.url(f"/{place}") for place in range(number)], receiver.requests, settings)


def meet(
    deployment: Deployment,
    bad: Neighbours,
    company: Company,
    *,
    alone: float,
    beside: float,
    burst: int = 0,
) -> Meeting:
    """Publishes for the good ones alone, then beside the bad ones, for so many seconds each, through one worker.

    A `burst` of events, published as fast as possible, precedes the events of the second part.
    """
    same = company is Company.SAME_EVENTS
    rough = [f"rough-{number}" for number in range(max(1, len(bad.urls) // FAN_OUT))]
    bad_types = rough if same else [f"bad-{place}" for place in range(len(bad.urls))]
    for path, delay in GOOD.items():
        deployment.receiver.rules[path] = always(Answer(delay=delay))
        for event_type in ("calm", *rough):
            url = deployment.receiver.url(path).replace("127.0.0.1", bad.good_host)
            deployment.subscribe(event_type, path, url)
    for place, url in enumerate(bad.urls):
        deployment.subscribe(bad_types[place % len(bad_types)], url, url)
    deployment.alter(bad.altered)
    deployment.start(**bad.settings)

    measure(deployment, ["calm"] * 50)  # warm-up: imports and connections
    before = measure(deployment, ["calm"] * int(RATE * alone))
    types = [rough[place % len(rough)] for place in range(int(RATE * beside))]
    if not same:
        types = [each for place in range(len(types)) for each in ("calm", bad_types[place % len(bad_types)])]
    deployment.publish(bad_types[0:1] * burst)
    during = measure(deployment, types, RATE if same else 2 * RATE)
    return Meeting({path: Latencies(before[path], during[path]) for path in GOOD}, bad.requests())


class Recovery(NamedTuple):
    """The recovery of a receiver with a backlog while new events arrive for it."""

    good: Mapping[str, Latencies]  # of other receivers, alone and meanwhile
    seconds: Sequence[Second]  # the receiver's own counts
    owed: int  # deliveries left at the end
    took: float  # seconds

    @property
    def refused(self) -> int:
        """Requests that found its queue full."""
        return sum(each.refused for each in self.seconds)


def come_back(deployment: Deployment, receiver: BadReceiver, backlog: int, live: float, within: float) -> Recovery:
    """A receiver answers 503 until it has its backlog.

    Then it is up, all rows are due, and `live` events a second follow.
    """
    for path, delay in GOOD.items():
        deployment.receiver.rules[path] = always(Answer(delay=delay))
        deployment.subscribe("calm", path)
    deployment.subscribe("bad-full", receiver.url("/"), receiver.url("/"))
    deployment.start(WEBHOOK_RETRY_SCHEDULE=",".join(["5s"] * 50), WEBHOOK_RETRY_IN_MEMORY="0")
    measure(deployment, ["calm"] * 50)
    before = measure(deployment, ["calm"] * int(RATE * 2))
    deployment.publish(["bad-full"] * backlog)
    eventually(lambda: not deployment.lag(), 60)

    receiver.up()
    begin = time.monotonic()
    deployment.sql("UPDATE webhook_deliveries SET next_attempt_at = created_at WHERE status = 'parked'")
    during: dict[str, list[float]] = {path: [] for path in GOOD}
    each_second = ["calm"] * int(RATE) + ["bad-full"] * int(live)
    Random(0).shuffle(each_second)  # noqa: S311 (the same order in each run)
    while (owed := len(deployment.rows("parked"))) and time.monotonic() < begin + within:
        for path, latencies in measure(deployment, each_second, RATE + live).items():
            during[path] += latencies
    took = time.monotonic() - begin
    good = {path: Latencies(before[path], sorted(during[path])) for path in GOOD}
    return Recovery(good, receiver.seconds(), owed, took)


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of the sorted values do not exceed."""
    return values[min(len(values) - 1, int(len(values) * part))]


def measure(deployment: Deployment, event_types: Sequence[str], per_second: float = RATE) -> dict[str, list[float]]:
    """Publishes and waits until the good ones have all: by path, the sorted seconds from publishing to request."""
    before = len(deployment.published)
    deployment.publish(event_types, per_second=per_second)
    events = list(deployment.published.items())[before:]
    owed = {body for body, event_type in events if not event_type.startswith("bad-")}
    end = time.monotonic() + LATEST
    while time.monotonic() < end:
        arrived = {path: _first_requests(deployment, path, owed) for path in GOOD}
        if all(len(each) == len(owed) for each in arrived.values()):
            break
        time.sleep(0.2)
    now, published = time.time(), deployment.published_at
    return {path: sorted(at.get(body, now) - published[body] for body in owed) for path, at in arrived.items()}


def _first_requests(deployment: Deployment, path: str, bodies: set[bytes]) -> dict[bytes, float]:
    first: dict[bytes, float] = {}
    for request in deployment.receiver.at(path):
        if request.body in bodies:
            first.setdefault(request.body, request.at)
    return first
