"""`kafka-webhooks replay`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.console import YesOption, row_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from consumer.config.settings import KafkaSettings, SchemaSettings
    from consumer.events.event import TopicPartition
    from consumer.intake.log_reader import LogReader
    from consumer.intake.record import Record
    from consumer.ledger.replays import Replay, Span
    from consumer.ops.replay import Choice
    from consumer.subscriptions.repository import Subscribed

_LINE = 10.0  # seconds between two lines without a terminal


def replay(
    *,
    subscription: Annotated[
        int | None,
        typer.Option(
            metavar="ID", parser=row_id, help="Subscription to send to; it gets the events that match it now."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin: 2026-07-28T14:00 (UTC without a zone), or an age: 2h, 3d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End, in the same notation. Default: now.")] = None,
    event_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Only events of this type or pattern.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="TOPIC", help="Only this one of KAFKA_TOPICS; may be repeated.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Deliveries per second, at most the subscription's limit. Default: a tenth of that, or 100.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be read; store and send nothing.")
    ] = False,
    resume: Annotated[
        int | None, typer.Option(metavar="REPLAY", parser=row_id, help="Continue a replay that stopped.")
    ] = None,
    yes: YesOption = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until all events are sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: the result as JSON.")] = False,
) -> None:
    """Send a subscription the log's events of a time window.

    The log is read outside the consumer group, whose offsets stay as they are. Matching events are stored, and the
    workers send them with their original ids and bodies, besides new events. Times are the records' timestamps. A
    replay keeps no order, even if the subscription is ordered by key.

    After an interruption of any kind, --resume continues where the replay stopped, and stores nothing twice. Ctrl-C and
    SIGTERM stop it between transactions.

    Exit status 1 if any delivery is given up or held.

    \b
    Examples:
      kafka-webhooks replay --subscription 7 --since 2h --dry-run
      kafka-webhooks replay --subscription 7 --since 2026-07-28T14:00Z --until 2026-07-28T15:00Z --yes
      kafka-webhooks replay --resume 3
    """
    from consumer.cli.console import open_database
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import check, environment, load
    from consumer.config.settings import DatabaseSettings, KafkaSettings, SchemaSettings, TopicSettings
    from consumer.intake.log_reader import LogReader
    from consumer.ops.replay import Choice

    if as_json and not dry_run:
        raise typer.BadParameter("it needs --dry-run", param_hint="--json")
    if resume is not None:
        if any(each is not None for each in (subscription, since, until, event_type, topic, rate)) or dry_run:
            raise typer.BadParameter("a replay keeps its options; give no others", param_hint="--resume")
    elif subscription is None or since is None:
        missing = "--subscription" if subscription is None else "--since"
        raise typer.BadParameter("give it, or --resume REPLAY", param_hint=missing)
    values = environment()
    check((KafkaSettings, TopicSettings, SchemaSettings, DatabaseSettings), values)
    kafka, json_of = load(KafkaSettings, values), _json_of(load(SchemaSettings, values))
    engine = open_database()
    if resume is not None:
        begun = _begun(engine, kafka, resume)
        choice = Choice(_subscription(engine, begun.subscription_id), kafka.tenant, begun.event_type, json_of)
        with LogReader(kafka) as reader:
            _store(engine, begun, choice, reader)
    else:
        first, last = _times(since or "", until)
        receiver = _subscription(engine, subscription or 0)
        _check_type(receiver, event_type)
        choice = Choice(receiver, kafka.tenant, event_type, json_of)
        pace = _rate(receiver, rate)
        with LogReader(kafka) as reader:
            with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
                spans = reader.spans(_partitions(reader, load(TopicSettings, values).topics, topic), first, last)
            if dry_run:
                _show(spans, first, last or time.time(), as_json=as_json)
                return
            replay_id = _begin(engine, kafka, receiver, spans, first, last or time.time(), event_type, pace, yes=yes)
            begun = _begun(engine, kafka, replay_id)
            _store(engine, begun, choice, reader)
    if not no_wait:
        _wait(engine, begun.id)


def _json_of(settings: "SchemaSettings") -> "Callable[[Record], Record] | None":
    """What gives records their value as JSON, if there is a schema registry."""
    if settings.url is None:
        return None
    from consumer.schemas.blocking import translator
    from consumer.schemas.registry import Registry

    return translator(Registry(settings).decoder)


def _subscription(engine: "Engine", subscription_id: int) -> "Subscribed":
    from consumer.errors import WebhooksError
    from consumer.subscriptions import repository

    found = repository.get(engine, subscription_id)
    if found is None:
        raise WebhooksError(f"there is no subscription {subscription_id}; `subscriptions list` shows them")
    if not found.enabled:
        raise WebhooksError(f"subscription {found.id} is disabled: `subscriptions enable {found.id}` first")
    return found


def _begun(engine: "Engine", kafka: "KafkaSettings", replay_id: int) -> "Replay":
    from consumer.errors import WebhooksError
    from consumer.ledger import replays

    found = replays.load(engine, replay_id)
    if found is None:
        raise WebhooksError(f"there is no replay {replay_id}")
    if found.group != kafka.group_id:
        raise WebhooksError(
            f"replay {replay_id} belongs to the group {found.group}, not {kafka.group_id}: set KAFKA_GROUP_ID to it"
        )
    if found.cancelled_at is not None:
        raise WebhooksError(f"replay {replay_id} was cancelled; begin another with --subscription and --since")
    return found


def _check_type(receiver: "Subscribed", event_type: str | None) -> None:
    from consumer.subscriptions.patterns import check_pattern, matches

    if event_type is None:
        return
    try:
        check_pattern(event_type)
    except ValueError as error:
        raise typer.BadParameter(f"it {error}", param_hint="--event-type") from None
    # If two patterns have a type in common, one of them matches every type that the other does.
    if not matches(receiver.event_type, event_type) and not matches(event_type, receiver.event_type):
        raise typer.BadParameter(
            f"subscription {receiver.id} gets {receiver.event_type}: nothing would match", param_hint="--event-type"
        )


def _rate(receiver: "Subscribed", rate: float | None) -> float:
    from consumer.ops.replay import MOST_RATE, default_rate
    from consumer.subscriptions.options import LEAST_NUMBER

    limit = receiver.options["rate_limit"]
    most = limit or MOST_RATE
    if rate is None:
        return default_rate(limit)
    if not LEAST_NUMBER <= rate <= most:
        whose = f", the limit of subscription {receiver.id}" if limit else ""
        raise typer.BadParameter(
            f"{rate:g} is not from {LEAST_NUMBER:g} to {most:g} per second{whose}", param_hint="--rate"
        )
    return rate


def _times(since: str, until: str | None) -> tuple[float, float | None]:
    from consumer.cli.console import moment

    now = time.time()
    first = moment(since, now, "--since")
    last = None if until is None else moment(until, now, "--until")
    if first >= now:
        raise typer.BadParameter("it is not in the past", param_hint="--since")
    if last is not None and last <= first:
        raise typer.BadParameter("it is not after --since", param_hint="--until")
    return first, None if last is None or last >= now else last


def _partitions(reader: "LogReader", names: "Sequence[str]", topics: list[str] | None) -> "list[TopicPartition]":
    from consumer.errors import WebhooksError

    partitions = reader.partitions(names)
    if not partitions:
        raise WebhooksError(f"no topic of KAFKA_TOPICS={','.join(names)} exists")
    there = {topic for topic, _ in partitions}
    for topic in topics or ():
        if topic not in there:
            raise typer.BadParameter(
                f"no worker would send from {topic}: it is not one of KAFKA_TOPICS, or does not exist",
                param_hint="--topic",
            )
    return [partition for partition in partitions if not topics or partition[0] in topics]


def _show(spans: "list[Span]", since: float, until: float, *, as_json: bool) -> None:
    """Print the offsets that a replay would read, by partition."""
    from consumer.cli.console import number, print_json, print_rows, time_text

    rows: list[dict[str, object]] = [
        {
            "topic": span.topic,
            "partition": span.number,
            "first_offset": span.begin,
            "last_offset": span.end - 1,
            "records": span.end - span.begin,
        }
        for span in spans
    ]
    records = sum(span.end - span.begin for span in spans)
    if as_json:
        times = {"since": time_text(since), "until": time_text(until)}
        print_json({**times, "records": records, "partitions": rows, "stored": 0})
        return
    if rows:
        print_rows(("topic", "partition", "first_offset", "last_offset", "records"), rows)
    typer.echo(
        f"{number(records, 'record')} from {time_text(since)} to {time_text(until)} would be read; nothing was stored",
        err=True,
    )


def _begin(
    engine: "Engine",
    kafka: "KafkaSettings",
    receiver: "Subscribed",
    spans: "list[Span]",
    since: float,
    until: float,
    event_type: str | None,
    rate: float,
    *,
    yes: bool,
) -> int:
    from consumer.cli.console import confirm, number, printable, time_text
    from consumer.ledger import replays

    records = sum(span.end - span.begin for span in spans)
    if not records:
        typer.echo(f"the topics hold no record from {time_text(since)} to {time_text(until)}", err=True)
        raise typer.Exit
    allowed = receiver.options["rate_limit"]
    limit = "" if allowed is None else f" (its limit is {allowed:g})"
    typer.echo(
        f"{number(records, 'record')} from {time_text(since)} to {time_text(until)} will be read; events of type "
        f"{event_type or receiver.event_type} go to {printable(receiver.url)}, up to {rate:g} per second{limit}",
        err=True,
    )
    if receiver.options["ordering"] == "key":
        typer.echo("the subscription is ordered by key: a replay does not keep that order", err=True)
    confirm(f"Replay this to subscription {receiver.id}?", yes=yes)
    return replays.create(engine, kafka.group_id, receiver.id, since, until, event_type, rate, spans)


def _store(engine: "Engine", replay: "Replay", choice: "Choice", reader: "LogReader") -> None:
    """Read and store the rest of a replay, showing progress; a signal stops it with status 0, between transactions."""
    import sys

    from consumer.cli.console import number, progress_bar, signals_noted
    from consumer.ops.replay import Progress, run

    if replay.finished_at is not None:
        typer.echo(f"replay {replay.id} has already stored all matching events", err=True)
        return
    advice = f"kafka-webhooks replay --resume {replay.id}"
    typer.echo(f"replay {replay.id}; if it is interrupted: {advice}", err=True)
    done = Progress(0, replay.matched, 0, finished=False)
    line_at = time.monotonic()
    total = sum(span.end - span.begin for span in replay.spans)
    with signals_noted() as stopped, progress_bar(total) as draw:
        for done in run(engine, replay, choice, reader, stopped):
            draw(done.read, f"{done.matched:,} matched")
            if not sys.stderr.isatty() and time.monotonic() - line_at >= _LINE:
                typer.echo(f"{done.read:,} of {number(total, 'record')} read, {done.matched:,} matched", err=True)
                line_at = time.monotonic()
    typer.echo(f"replay {replay.id}: {number(done.matched, 'matching record')} stored")
    if done.finished and not done.matched:
        typer.echo("no event matched; event types differ by upper and lower case", err=True)
    if done.undecodable:
        typer.echo(f"{number(done.undecodable, 'record')} skipped: not an event", err=True)
    if choice.filter_errors:
        typer.echo(f"{number(choice.filter_errors, 'record')} skipped: the filter failed", err=True)
    if reader.removed_total:
        typer.echo(
            f"{number(reader.removed_total, 'record')} removed by retention before the replay read them", err=True
        )
    if not done.finished:
        typer.echo(f"stopped; {advice} goes on with the rest", err=True)
        raise typer.Exit(0)


def _wait(engine: "Engine", replay_id: int) -> None:
    from consumer.cli.watching import watch
    from consumer.ledger import counts, replays

    found = replays.load(engine, replay_id)
    if found is not None and found.matched:
        watch(
            lambda: counts.of_replay(engine, replay_id, found.matched),
            lambda: counts.next_of_replay(engine, replay_id),
        )
