"""Commands that write records: publish, and dead-letters publish."""

import sys
import time
from collections import Counter
from itertools import chain, islice, repeat
from typing import Annotated

import orjson
import typer

from consumer.cli.console import YesOption, confirm, moment, number, print_rows
from consumer.cli.console import header as parse_header
from consumer.cli.deployment import changes, configure
from consumer.cli.progress import Waiting, progress_bar, until_signal
from consumer.config.environment import load
from consumer.config.settings import KafkaSettings
from consumer.kafka.producer import Outgoing
from consumer.kafka.producer import publish as publish_all
from consumer.ops import dead_letters as letters

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
