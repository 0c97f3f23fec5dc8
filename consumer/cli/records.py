"""Commands about Kafka's records: publish, explain, and dead-letters publish."""

import sys
import time
from collections import Counter
from itertools import chain, islice, repeat
from typing import Annotated

import orjson
import typer

from consumer.cli.console import (
    YesOption,
    confirm,
    moment,
    number,
    print_fields,
    print_json,
    print_rows,
    shortened,
    time_text,
)
from consumer.cli.console import header as parse_header
from consumer.cli.deployment import changes, configure, open_database
from consumer.cli.progress import Waiting, progress_bar, until_signal
from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, KafkaSettings, RuleSettings, SchemaSettings
from consumer.crypto.vault import Vault
from consumer.events.event import Event
from consumer.intake.mapping_file import mappings_of
from consumer.kafka.producer import Outgoing
from consumer.kafka.producer import publish as publish_all
from consumer.ops import dead_letters as letters
from consumer.ops import explain as explaining
from consumer.ops.bounded import reason_of
from consumer.ops.events import json_reader
from consumer.ops.explain import SHOWN, Candidates, Explained, candidates_of

_EACH = 10  # up to this many records are reported one by one, more by partition


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Topic to publish to.")],
    value: Annotated[str, typer.Argument(metavar="JSON|-", help="The event; - reads stdin: one, or one per line.")],
    *,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The record's key; events with one key stay in order.")
    ] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Event type, as the header event-type.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Event id, as the header event-id.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="A header; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000_000, metavar="TIMES", help="Publish this many times.")] = 1,
) -> None:
    """Publish events and wait until Kafka has stored them.

    \b
    Examples:
      kafka-webhooks publish users '{"id": 123, "name": "Jane Doe"}' --type user.created --key 123
      kafka-webhooks publish users - < events.jsonl
    """
    events = _events(sys.stdin.buffer.read() if value == "-" else value.encode(errors="surrogateescape"))
    total = len(events) * count
    if event_id is not None and total > 1:
        raise typer.BadParameter("publish one event with it: a second would be a duplicate", param_hint="--id")
    pairs = [parse_header(text, "--header") for text in header or ()]
    named = {"event-type": event_type, "event-id": event_id}
    pairs += [(name, text) for name, text in named.items() if text is not None]
    configure()
    stored: Counter[int] = Counter()
    kafka = load(KafkaSettings)
    encoded = key.encode(errors="surrogateescape") if key is not None else None
    headers = [(name, text.encode(errors="surrogateescape")) for name, text in pairs]
    values = chain.from_iterable(repeat(events, count))
    places = publish_all(kafka, (Outgoing(topic, value, encoded, headers) for value in values))
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        first = list(islice(places, 1))
    try:
        with typer.progressbar(
            chain(first, places), length=total, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as progress:
            for partition, offset in progress:
                stored[partition] += 1
                if total <= _EACH:
                    typer.echo(f"{topic}[{partition}] offset {offset}")
    finally:
        if total > _EACH:
            typer.echo(f"{stored.total()} of {total} records stored in {topic}")
            for partition, records in sorted(stored.items()):
                typer.echo(f"  partition {partition}: {records}")


def _events(text: bytes) -> list[bytes]:
    """The events in `text`: one JSON document, or one per line. A usage error for anything else."""
    if _is_json(text):
        return [text.strip()]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for place, line in enumerate(lines, 1):
        if not _is_json(line):
            where = f"line {place} " if len(lines) > 1 else "it "
            raise typer.BadParameter(f"{where}is not JSON", param_hint="JSON|-")
    if not lines:
        raise typer.BadParameter("it is empty", param_hint="JSON|-")
    return lines


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def explain(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Topic to read the record from.")],
    *,
    partition: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, metavar="NUMBER", help="Its partition.")
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, metavar="NUMBER", help="Its offset, with --partition. Default: the newest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show how a record is read, and which subscriptions get it.

    Reads one record from Kafka, outside any group. Shows which mapping applies and the source of each field, the event
    or why there is none, and the subscriptions to its type: which ones would get it, and why others would not.
    Sends and stores nothing. Without a database it shows the first part alone.

    \b
    Examples:
      kafka-webhooks explain orders
      kafka-webhooks explain orders --partition 3 --offset 1234 --json
    """
    if offset is not None and partition is None:
        raise typer.BadParameter("give --partition too: each partition has offsets of its own", param_hint="--offset")
    kafka = load(KafkaSettings)
    mapped, json_of = mappings_of(kafka), json_reader(load(SchemaSettings))
    configure()
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        record = explaining.record_of(kafka, topic, partition, offset)
    found = explaining.explain(record, kafka.tenant, mapped, json_of)
    receivers, not_looked = (None, None) if found.event is None else _receivers(found.event, kafka.group_id)
    told = _told(found, receivers, not_looked)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _receivers(event: Event, group: str) -> tuple[Candidates | None, str | None]:
    """The subscriptions to an event's type, or the reason why they are not known."""
    try:
        vault = Vault(load(DatabaseSettings).encryption_keys)
        return candidates_of(open_database(), event, vault, load(RuleSettings), group), None
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        return None, "; ".join(reason.splitlines())


def _told(found: Explained, receivers: Candidates | None, not_looked: str | None) -> dict[str, object]:
    """The explanation, as JSON."""
    event, place = found.event, found.place
    return {
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "timestamp": time_text(place.timestamp / 1000),
        "mapping": found.mapping,
        "fields": [step._asdict() for step in found.steps],
        "outcome": found.outcome,
        "reason": found.reason,
        "detail": found.detail,
        "event": None
        if event is None
        else {
            "type": event.type,
            "webhook_id": event.webhook_id,
            "tenant": event.tenant,
            "content_type": event.content_type,
            "bytes": len(event.body),
            "body": event.body[:SHOWN].decode("utf-8", "replace"),
        },
        "subscriptions": None if receivers is None else [each._asdict() for each in receivers.found],
        "more_subscriptions": receivers is not None and receivers.more,
        "no_subscriptions_because": not_looked,
    }


def _print(told: dict[str, object]) -> None:
    place = f"{told['topic']}[{told['partition']}] @ {told['offset']}"
    print_fields({"record": place, "timestamp": told["timestamp"], "mapping": told["mapping"]})
    steps: list[dict[str, object]] = told["fields"]  # type: ignore[assignment]  # as `_told` makes it
    if steps:
        typer.echo()
        rows = [
            {**step, "value": None if step["value"] is None else shortened(str(step["value"]), 80)} for step in steps
        ]
        print_rows(("field", "value", "by"), rows)
    typer.echo()
    event: dict[str, object] | None = told["event"]  # type: ignore[assignment]  # the same
    if event is None:
        print_fields({name: told[name] for name in ("outcome", "reason", "detail")})
        return
    print_fields({"outcome": told["outcome"], **event, "tenant": event["tenant"] or "none"})
    typer.echo()
    found: list[dict[str, object]] | None = told["subscriptions"]  # type: ignore[assignment]  # the same
    if found is None:
        typer.echo(f"who would get it is not known: {told['no_subscriptions_because']}")
        return
    getting = [each for each in found if each["gets"]]
    typer.echo(f"{number(len(getting), 'subscription')} would get it")
    if getting:
        print_rows(("id", "url", "event_type", "why"), getting)
    if others := [each for each in found if not each["gets"]]:
        typer.echo(f"{number(len(others), 'subscription')} to this type would not")
        print_rows(("id", "url", "event_type", "why"), others)
    if told["more_subscriptions"]:
        typer.echo("there are more subscriptions to this type")


def publish_dead_letters(
    *,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Only records of this topic.")] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="Only this dead-letter-reason, such as not_json.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Only those written since: 2026-07-28T14:00 (UTC), or 2h."),
    ] = "7d",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only those written before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="NUMBER", help="At most this many.")] = 10_000,
    yes: YesOption = False,
) -> None:
    """Publish dead letters again, each to its own topic, unchanged.

    Remove the cause first: what is not yet an event becomes a dead letter again. The command counts them by topic and
    reason, and asks. Published ones are marked for a week and left out then: the same command continues after an
    interruption, or with the rest if there are more. Ctrl-C ends it after the current batch.

    \b
    Examples:
      kafka-webhooks dead-letters publish --topic orders --since 2h
      kafka-webhooks dead-letters publish --reason unknown_schema --yes
    """
    now = time.time()
    begin = moment(since, now, "--since")
    end = None if until is None else moment(until, now, "--until")
    kafka = load(KafkaSettings)
    by_user = changes()
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        found = letters.search(
            kafka,
            by_user.deployment,
            limit,
            begin,
            end,
            lambda letter: topic in {None, letter.topic} and reason in {None, letter.reason},
        )
    if found.published:
        typer.echo(f"left out, published again before: {found.published:,}", err=True)
    if found.lacking:
        typer.echo(f"left out, the topic does not hold the whole record: {found.lacking:,}", err=True)
    if not found.places:
        typer.echo("there are no such dead letters", err=True)
        return
    total = len(found.places)
    kinds = sorted(found.kinds.items())
    print_rows(("topic", "reason", "records"), ({"topic": t, "reason": r, "records": count} for (t, r), count in kinds))
    confirm(f"Publish {number(total, 'dead letter')} again?", yes=yes)
    done = 0
    batches = letters.publish_many(by_user, kafka, found.places)
    try:
        with progress_bar(total) as draw:
            for published in until_signal(batches, "the same command continues with the rest"):
                done += published
                draw(done, f"{done:,} published")
    finally:
        typer.echo(f"{number(done, 'dead letter')} published again")
    if found.more:
        typer.echo("there are more: the same command continues with them", err=True)
