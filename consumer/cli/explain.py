"""`kafka-webhooks explain`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from consumer.events.event import Event
    from consumer.ops.explain import Candidates, Explained


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
    from consumer.cli.console import configure, print_json
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import load
    from consumer.config.settings import KafkaSettings, SchemaSettings
    from consumer.intake.mapping_file import mappings_of
    from consumer.ops import explain as explaining
    from consumer.ops.events import json_reader

    if offset is not None and partition is None:
        raise typer.BadParameter("give --partition too: each partition has offsets of its own", param_hint="--offset")
    kafka = load(KafkaSettings)
    mapped, json_of = mappings_of(kafka), json_reader(load(SchemaSettings))
    configure()
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        record = explaining.record_of(kafka, topic, partition, offset)
    found = explaining.explain(record, kafka.tenant, mapped, json_of)
    receivers, not_looked = (None, None) if found.event is None else _receivers(found.event)
    told = _told(found, receivers, not_looked)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _receivers(event: "Event") -> "tuple[Candidates | None, str | None]":
    """The subscriptions to an event's type, or the reason why they are not known."""
    from consumer.cli.console import open_database
    from consumer.config.environment import load
    from consumer.config.settings import DatabaseSettings, RuleSettings
    from consumer.crypto.vault import Vault
    from consumer.ops.bounded import reason_of
    from consumer.ops.explain import candidates_of

    try:
        vault = Vault(load(DatabaseSettings).encryption_keys)
        return candidates_of(open_database(), event, vault, load(RuleSettings)), None
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        return None, "; ".join(reason.splitlines())


def _told(found: "Explained", receivers: "Candidates | None", not_looked: str | None) -> dict[str, object]:
    """The explanation, as JSON."""
    from consumer.cli.console import time_text
    from consumer.ops.explain import SHOWN

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


def _print(told: "dict[str, object]") -> None:
    from consumer.cli.console import number, print_fields, print_rows, shortened

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
