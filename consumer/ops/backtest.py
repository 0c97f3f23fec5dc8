"""Tries options of a subscription on the log: which events would match, and how they would be sent. Sends nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from consumer.errors import Tombstone, Undecodable
from consumer.events.cloud_event import rfc3339, variables_of
from consumer.events.event import Event, RecordId
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span
from consumer.ops.matching import endpoint_like, refusal
from consumer.ops.replay_request import Log, records
from consumer.ops.walk import Bounds, left, walk
from consumer.sending.payloads import Unrenderable, body_of
from consumer.sending.request import shown
from consumer.subscriptions import event_types
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import completed, read
from consumer.subscriptions.patterns import matches
from models.subscription import EVERY_TENANT

SAMPLES = 10  # bodies
SHOWN = 4_000  # bytes of a body
KINDS = 100  # types and reasons that are counted apart
HOUR = 3600
OTHERS = "others"
_NO_URL = "https://example.com/"  # of options that have none yet


class Sample(NamedTuple):
    """A matching event as it would be sent; `wrong`: why it cannot be. `request`: as `sending.request.shown`."""

    place: RecordId
    webhook_id: str
    event_type: str
    request: str | None
    content_type: str | None
    body: bytes | None
    wrong: str | None


@dataclass(slots=True)
class Backtest:
    """What was found so far: `events` of the subscription's types and tenant, and the `matched` ones of them.

    `by_type` and `by_hour` (unix seconds of its beginning) count the matched ones, `refused` the others by reason.
    `left`: the spans that were not read yet.
    """

    left: Sequence[Span]
    records: int = 0
    events: int = 0
    matched: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    by_hour: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """What was found, for people: bodies as text, and hours as times."""
        samples = [
            {
                "topic": each.place.topic,
                "partition": each.place.partition,
                "offset": each.place.offset,
                "webhook_id": each.webhook_id,
                "event_type": each.event_type,
                "request": each.request,
                "content_type": each.content_type,
                "body": None if each.body is None else each.body[:SHOWN].decode(errors="replace"),
                "wrong": each.wrong,
            }
            for each in self.samples
        ]
        return {
            "records": self.records,
            "records_left": records(self.left),
            "events": self.events,
            "matched": self.matched,
            "by_type": dict(self.by_type.most_common()),
            "by_hour": {rfc3339(hour): number for hour, number in sorted(self.by_hour.items())},
            "refused": dict(self.refused.most_common()),
            "samples": samples,
        }


def added(before: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """What was found in two parts of the log, each in the form of `as_json`."""
    sums: dict[str, Any] = {name: before[name] + part[name] for name in ("records", "events", "matched")}
    sums["by_hour"] = Counter(before["by_hour"]) + Counter(part["by_hour"])
    for name in ("by_type", "refused"):
        sums[name] = Counter(before[name])
        for kind, number in part[name].items():
            _count(sums[name], kind, number)
    return {**part, **sums, "samples": [*before["samples"], *part["samples"]][:SAMPLES]}


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options to try, parsed. `event_types`, or `event_type` alone, has the types. Raises InvalidSubscription."""
    options = dict(given)
    types = options.pop("event_types", None) or [options.get("event_type")]
    values = completed({"url": _NO_URL, **options, "event_type": types[0]})
    meant, _ = read(values)
    more = {"event_types": event_types.checked(types), "tenant": values["tenant"]}
    return meant | more | {"endpoint": endpoint_like(meant, values["url"])}


def backtest(log: Log, meant: Mapping[str, Any], so_far: Backtest, bounds: Bounds) -> None:
    """Try the options on the next stretch of the log, within the bounds, and add to what was found so far.

    `meant`: from `options_of`. Raises RegistryUnavailable, and as `LogReader` does.
    """
    with LogReader(log.kafka, name="backtest") as reader:
        for batch in walk(reader, so_far.left, bounds):
            so_far.records += len(batch)
            for event in _events(log, batch):
                if any(matches(each, event.type) for each in meant["event_types"]):
                    _try(meant, event, so_far)
        so_far.left = left(reader, so_far.left)


def _events(log: Log, batch: Sequence[Record]) -> list[Event]:
    found = []
    for record in batch:
        try:
            found.append(log.read_event(record))
        except (Tombstone, Undecodable):  # it is no event
            continue
    return found


def _try(meant: Mapping[str, Any], event: Event, so_far: Backtest) -> None:
    if meant["tenant"] not in {EVERY_TENANT, event.tenant}:
        return
    so_far.events += 1
    why = refusal(meant, event, variables_of(event) if meant["event_filter"] is not None else {})
    if why is not None:
        _count(so_far.refused, why)
        return
    so_far.matched += 1
    _count(so_far.by_type, event.type)
    so_far.by_hour[event.record.timestamp // 1000 // HOUR * HOUR] += 1
    if len(so_far.samples) < SAMPLES:
        so_far.samples.append(_sample(meant["endpoint"], event))


def _count(counter: Counter[str], kind: str, number: int = 1) -> None:
    counter[kind if kind in counter or len(counter) < KINDS else OTHERS] += number


def _sample(endpoint: Endpoint, event: Event) -> Sample:
    request = content_type = body = wrong = None
    try:
        request = shown(endpoint, event)
        body, content_type = body_of(endpoint, event)
    except Unrenderable as error:
        wrong = str(error)
    return Sample(event.record, event.webhook_id, event.type, request, content_type, body, wrong)
