"""Commands about events of the log: find, explain, and resend."""

import time
from typing import Annotated

import typer

from consumer.cli.console import (
    moment,
    number,
    print_fields,
    print_json,
    print_rows,
    printable,
    row_id,
    shortened,
    time_text,
)
from consumer.cli.deployment import changes, configure, deployment, log_of, open_database
from consumer.cli.progress import Waiting, progress_bar, signals_noted
from consumer.config.environment import environment, load
from consumer.config.settings import KafkaSettings, SchemaSettings
from consumer.events.event import Event
from consumer.intake.log_reader import LogReader
from consumer.intake.mapping_file import mappings_of
from consumer.ops import explain as explaining
from consumer.ops import find as finding
from consumer.ops.attempts import AttemptHistory
from consumer.ops.bounded import reason_of
from consumer.ops.events import event_reader, json_reader
from consumer.ops.explain import SHOWN, Explained
from consumer.ops.find import Hit
from consumer.ops.replay_request import Log, records
from consumer.ops.resend import resend as send_again
from consumer.ops.story import Story, tell
from consumer.ops.walk import Bounds


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
    """Show how a record is read, who got its event, and who did not.

    Reads one record from Kafka, outside any group. Shows which mapping applies and the source of each field, the event
    or why there is none, and the subscriptions to its type: which ones got it, which ones did not, and why.
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
    story, not_looked = (None, None) if found.event is None else _story(found.event, kafka)
    told = _told(found, story, not_looked)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _story(event: Event, kafka: KafkaSettings) -> tuple[Story | None, str | None]:
    """What became of an event at each subscription, or the reason why it is not known."""
    history = None if kafka.attempts_topic is None else AttemptHistory(kafka, kafka.attempts_topic)
    try:
        return tell(deployment(open_database()), event, kafka, history), None
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        return None, "; ".join(reason.splitlines())


def _told(found: Explained, story: Story | None, not_looked: str | None) -> dict[str, object]:
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
        "receivers": None if story is None else [each.as_json() for each in story.receivers],
        "more_receivers": story is not None and story.next is not None,
        "other_tenants": None if story is None else story.others,
        "missing": not_looked if story is None else story.missing,
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
    found: list[dict[str, object]] | None = told["receivers"]  # type: ignore[assignment]  # the same
    if found is None:
        typer.echo(f"who got it is not known: {told['missing']}")
        return
    typer.echo(f"{number(len(found), 'subscription')} to this type, or with a delivery of it")
    typer.echo(f"{told['other_tenants']} others are for other tenants")
    if found:
        print_rows(("subscription_id", "url", "event_type", "state", "why"), found)
        for each in found:
            if each["request"] is not None:
                typer.echo(f"\nthe request of subscription {each['subscription_id']}:")
                for line in str(each["request"]).split("\n"):
                    typer.echo(f"  {printable(line)}")
    if told["more_receivers"]:
        typer.echo("there are more: the console and GET /v1/events show them by pages")
    if told["missing"]:
        typer.echo(f"perhaps incomplete: {told['missing']}", err=True)


def resend(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Topic of the event's record.")],
    *,
    partition: Annotated[int, typer.Option(min=0, max=2**31 - 1, metavar="NUMBER", help="Its partition.")],
    offset: Annotated[int, typer.Option(min=0, max=2**63 - 1, metavar="NUMBER", help="Its offset.")],
    subscription: Annotated[int, typer.Option(metavar="ID", parser=row_id, help="The subscription to send it to.")],
) -> None:
    """Send a subscription one event of the log again, also if it was delivered.

    The workers send it with the same webhook-id. A stored delivery that waits or was given up is due now; else a replay
    reads the record again.

    \b
    Examples:
      kafka-webhooks resend orders --partition 3 --offset 1234 --subscription 7
    """
    kafka = load(KafkaSettings)
    read_event = event_reader(kafka, load(SchemaSettings))
    by_user = changes()
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        event = read_event(explaining.record_of(kafka, topic, partition, offset))
        sent = send_again(by_user, event, kafka, subscription)
    if sent.replay_id is None:
        typer.echo(f"delivery {sent.delivery_id} is due now")
    else:
        typer.echo(f"replay {sent.replay_id} sends it; `kafka-webhooks replay --watch {sent.replay_id}` shows it")


def find(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="An id, a key, a place, a name, a URL, an event type.")],
    *,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Search the log since: 2026-07-28T14:00 (UTC without a zone), or 2h.")
    ] = "24h",
    no_log: Annotated[bool, typer.Option("--no-log", help="Search only the database.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Find what a text names: subscriptions, deliveries, replays, and events of the log.

    In the log it compares the webhook-id, the event id and the key of each event, and the values of
    WEBHOOK_SEARCH_FIELDS; without these it looks for the text in the values. Ctrl-C ends the search after the current
    part; what was found is printed.

    \b
    Examples:
      kafka-webhooks find order-4711 --since 3d
      kafka-webhooks find msg_143dab3b0a3b75b910a8f2797991ac8e
      kafka-webhooks find 'orders[3]@1234'
    """
    begin = moment(since, time.time(), "--since")
    hits = finding.known(deployment(open_database()), text)
    left = 0
    if not no_log:
        found, left = _in_log(log_of(environment()), text, begin)
        hits += found
    if as_json:
        print_json({"hits": [each.as_json() for each in hits], "records_left": left})
    elif hits:
        print_rows(("kind", "which", "matched", "what", "at"), map(_row, hits))
    if left:
        typer.echo(f"{number(left, 'record')} of the log were not searched", err=True)
    if not hits and not as_json:
        typer.echo("nothing was found", err=True)


def _in_log(log: Log, text: str, begin: float) -> tuple[list[Hit], int]:
    """The hits in the log, and how many records were not searched."""
    if len(text) < finding.SHORTEST:
        raise typer.BadParameter(f"the log is searched for at least {finding.SHORTEST} characters", param_hint="TEXT")
    with Waiting(f"Kafka at {log.kafka.bootstrap_servers}"), LogReader(log.kafka) as reader:
        spans = finding.whole(reader, log, begin)
    total = left = records(spans)
    hits: list[Hit] = []
    with signals_noted() as stopped, progress_bar(total) as draw:
        while spans and not stopped():
            stretch = finding.search(log, text, spans, Bounds())
            hits += stretch.hits
            spans, left = list(stretch.left), stretch.records_left
            draw(total - left, f"{len(hits)} found")
    return hits, left


def _row(hit: Hit) -> dict[str, object]:
    which = str(hit.id) if hit.topic is None else f"{hit.topic}[{hit.partition}]@{hit.offset}"
    return {**hit.as_json(), "which": which, "at": "" if hit.at is None else time_text(hit.at)}
