"""Pages about dead letters, the audit log and event types."""

from collections import Counter
from functools import partial
from http import HTTPStatus

import orjson
from starlette.responses import Response

from consumer.console.app import Entry, Refusal, Visit, to
from consumer.console.sources import Sources, for_all_tenants, kafka_of, whole
from consumer.errors import WebhooksError
from consumer.events.attempt import DELIVERED
from consumer.ledger import marks
from consumer.ops import audit, dead_letters
from consumer.subscriptions.health import named_types

LETTERS, OPERATIONS = 50, 200  # records shown
TYPES, ATTEMPTS = 200, 10_000


def entries(sources: Sources) -> list[Entry]:
    """Their pages and forms."""
    return [
        Entry("/dead-letters", partial(_dead_letters, sources)),
        Entry("/dead-letters/publish", partial(_publish, sources), "write", post=True),
        Entry("/audit", partial(_audit, sources)),
        Entry("/types", partial(_types, sources)),
    ]


def _dead_letters(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    kafka = kafka_of(sources)
    found, again, fault = [], {}, None
    try:
        found = dead_letters.recent(kafka, LETTERS)
        if found:
            first = min(letter.offset for letter in found)
            again = marks.published(sources.registry.engine, sources.registry.group, kafka.dead_letter_topic, first)
    except WebhooksError as error:
        fault = str(error)
    return visit.render(
        "dead_letters.html",
        topic=kafka.dead_letter_topic,
        rows=[
            {
                **letter._asdict(),
                "published": again.get((letter.partition, letter.offset)),
                "place": f"{kafka.dead_letter_topic}[{letter.partition}] @ {letter.offset}",
                "key": letter.key.decode(errors="backslashreplace") if letter.key else None,
                "value": letter.value.decode(errors="backslashreplace"),
            }
            for letter in found
        ],
        fault=fault,
    )


def _publish(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    partition, offset = whole(visit.form.get("partition", "")), whole(visit.form.get("offset", ""))
    if partition is None or offset is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "The form does not name a dead letter.")
    kafka = kafka_of(sources)
    topic, _ = dead_letters.publish_again(kafka, partition, offset)
    dead_letters.note_published(sources.registry, visit.caller.actor, kafka, (partition, offset), topic)
    return to("/dead-letters", "published")


def _audit(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    kafka = kafka_of(sources)
    rows, fault = [], None
    try:
        found = audit.recent(kafka, OPERATIONS)
    except WebhooksError as error:
        fault = str(error)
    else:
        rows = [
            {
                **entry._asdict(),
                "summary": _summary(entry),
                "data": orjson.dumps(entry.data, option=orjson.OPT_INDENT_2).decode(),
            }
            for entry in found
        ]
    return visit.render("audit.html", topic=kafka.operations_topic, rows=rows, fault=fault)


def _summary(entry: audit.AuditEntry) -> str:
    changed, url = entry.data.get("changed"), entry.data.get("url")
    match entry.data:
        case {"replay_id": number}:
            return f"replay {number}"
        case {"delivery_ids": [*ids]}:
            return f"{len(ids)} deliveries"
        case {"published_to": topic, "offset": offset}:
            return f"the dead letter at offset {offset}, to {topic}"
    return ", ".join(map(str, changed)) if isinstance(changed, list) and changed else str(url or "details")


def _types(sources: Sources, visit: Visit) -> Response:
    for_all_tenants(visit.caller)
    attempts = [] if sources.history is None else sources.history.recent(None, ATTEMPTS)
    delivered = Counter(each.event_type for each in attempts if each.outcome == DELIVERED)
    failed = Counter(each.event_type for each in attempts if each.outcome != DELIVERED)
    seen = {each.event_type: each.at for each in reversed(attempts)}
    named = {each.event_type: each.subscriptions for each in named_types(sources.registry.engine, TYPES)}
    names = sorted({*named, *seen})
    return visit.render(
        "types.html",
        rows=[
            {
                "name": name,
                "subscriptions": named.get(name, 0),
                "delivered": delivered[name],
                "failed": failed[name],
                "seen": seen.get(name),
            }
            for name in names
        ],
    )
