"""`kafka-webhooks publish`."""

import sys
from collections import Counter
from itertools import chain, islice, repeat
from typing import Annotated

import typer

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
    from consumer.cli import console
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import load
    from consumer.config.settings import KafkaSettings
    from consumer.kafka.producer import Outgoing
    from consumer.kafka.producer import publish as publish_all

    events = _events(sys.stdin.buffer.read() if value == "-" else value.encode(errors="surrogateescape"))
    total = len(events) * count
    if event_id is not None and total > 1:
        raise typer.BadParameter("publish one event with it: a second would be a duplicate", param_hint="--id")
    pairs = [console.header(text, "--header") for text in header or ()]
    named = {"event-type": event_type, "event-id": event_id}
    pairs += [(name, text) for name, text in named.items() if text is not None]
    console.configure()
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
    for number, line in enumerate(lines, 1):
        if not _is_json(line):
            where = f"line {number} " if len(lines) > 1 else "it "
            raise typer.BadParameter(f"{where}is not JSON", param_hint="JSON|-")
    if not lines:
        raise typer.BadParameter("it is empty", param_hint="JSON|-")
    return lines


def _is_json(text: bytes) -> bool:
    import orjson

    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
