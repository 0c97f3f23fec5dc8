"""Recent attempts of all subscriptions, and the page of an event: its record, attempts and stored deliveries."""

from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

from starlette.responses import Response

from consumer.console.app import Entry, Refusal, Visit, to
from consumer.console.sources import Sources, attempt_row, event_path, for_all_tenants, log_of, stored_state, whole
from consumer.intake.record import Unreadable
from consumer.intake.topics import consumes
from consumer.ledger import admin
from consumer.ops import events
from consumer.ops.events import Found

SHOWN = 100  # attempts, or stored deliveries, on a page
BODY = 64 * 1024  # bytes of a value
_PLACE = ("topic", "partition", "offset")


def entries(sources: Sources) -> list[Entry]:
    """The pages of events."""
    return [
        Entry("/events", partial(_recent, sources)),
        Entry("/events/{topic}/{partition:number}/{offset:number}", partial(_show, sources)),
    ]


def _recent(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    asked = {name: visit.query.get(name, "").strip() for name in ("webhook_id", *_PLACE)}
    partition, offset = whole(asked["partition"]), whole(asked["offset"])
    if asked["topic"] and partition is not None and offset is not None:
        return to(event_path(asked["topic"], partition, offset))
    history, wanted = sources.history, asked["webhook_id"]
    rows = [] if history is None else history.recent(None, SHOWN, lambda each: wanted in {"", each.webhook_id})
    return visit.render(
        "events.html",
        asked=asked,
        on=history is not None,
        rows=[attempt_row(each) for each in rows],
    )


def _show(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    place = topic, partition, offset = visit.path["topic"], int(visit.path["partition"]), int(visit.path["offset"])
    kafka, names, read_event = log_of(sources)
    if not consumes(kafka, names)(topic):
        raise Refusal(HTTPStatus.NOT_FOUND, f"No worker consumes {topic}: it is not one of KAFKA_TOPICS.")
    found = events.find(kafka, read_event, *place)
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"{topic}[{partition}] has no record at offset {offset} any more.")
    registry, history = sources.registry, sources.history
    attempts = (
        []
        if history is None
        else history.recent(None, SHOWN, lambda each: (each.topic, each.partition, each.offset) == place)
    )
    stored = admin.of_record(registry.engine, registry.group, *place)
    value = found.record.value or b""
    return visit.render(
        "event.html",
        it={
            "title": found.event.type if found.event else "No event",
            "place": f"{topic}[{partition}] @ {offset}",
            "reason": found.reason,
            "at": found.record.timestamp / 1000,
            "size": len(value),
            "cut": len(value) > BODY,
            "body": value[:BODY].decode(errors="backslashreplace"),
            "facts": list(_facts(found)),
            "headers": list(_headers(found)),
        },
        on=history is not None,
        attempts=[attempt_row(each) for each in attempts],
        stored=[
            {"id": row, "subscription_id": subscription, "state": stored_state(status)}
            for subscription, (row, status) in sorted(stored.items())[:SHOWN]
        ],
        stored_in_all=len(stored),
    )


def _facts(found: Found) -> Iterator[tuple[str, object]]:
    record, event = found.record, found.event
    if event is not None:
        yield "webhook-id", event.webhook_id
        yield "content-type", event.content_type
        yield "tenant", event.tenant or "none"
    yield "key", "none" if record.key is None else record.key.decode(errors="backslashreplace")


def _headers(found: Found) -> Iterator[tuple[str, str]]:
    headers = found.record.headers
    if headers is not None and not isinstance(headers, Unreadable):
        for name, value in headers:
            yield name, "null" if value is None else value.decode(errors="backslashreplace")
