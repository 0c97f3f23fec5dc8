"""`kafka-webhooks replay`."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Engine

from consumer.cli.console import YesOption, confirm, number, print_json, print_rows, printable, row_id, time_text
from consumer.cli.deployment import open_database
from consumer.cli.progress import Waiting, progress_bar, signals_noted
from consumer.cli.watching import watch
from consumer.config.environment import check, environment, load
from consumer.config.settings import DatabaseSettings, KafkaSettings, SchemaSettings, TopicSettings
from consumer.errors import InvalidReplay, NotFound, WebhooksError
from consumer.intake.log_reader import LogReader
from consumer.ledger import replays, search
from consumer.ledger.replays import Replay, Span
from consumer.ops.changes import command_line_actor
from consumer.ops.events import event_reader
from consumer.ops.replay import Choice, Progress, run
from consumer.ops.replay_request import Plan, Wanted, create, parts, plan, spans
from consumer.ops.replay_request import records as number_of
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Subscribed

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
        list[str] | None, typer.Option(metavar="TOPIC", help="Only this topic of KAFKA_TOPICS; may be repeated.")
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
    kafka = load(KafkaSettings, values)
    read_event = event_reader(kafka, load(SchemaSettings, values))
    engine = open_database()
    if resume is not None:
        begun = _begun(engine, kafka, resume)
        choice = Choice(_subscription(engine, begun.subscription_id), read_event, begun.event_type)
        with LogReader(kafka) as reader:
            _store(engine, begun, choice, reader)
    else:
        wanted = Wanted(since or "", until, event_type, topic or (), rate)
        with _usage(wanted.topics):
            planned = plan(_subscription(engine, subscription or 0), wanted, time.time())
        choice = Choice(planned.receiver, read_event, event_type)
        with LogReader(kafka) as reader:
            with Waiting(f"Kafka at {kafka.bootstrap_servers}"), _usage(wanted.topics):
                found = spans(reader, load(TopicSettings, values).topics, planned)
            if dry_run:
                _show(found, planned, as_json=as_json)
                return
            begun = _begun(engine, kafka, _begin(engine, kafka, planned, found, yes=yes))
            _store(engine, begun, choice, reader)
    if not no_wait:
        _wait(engine, begun.id)


def _subscription(engine: Engine, subscription_id: int) -> Subscribed:
    found = repository.get(engine, subscription_id)
    if found is None:
        raise NotFound("subscription", subscription_id)
    if not found.enabled:
        raise WebhooksError(f"subscription {found.id} is disabled: `subscriptions enable {found.id}` first")
    return found


def _begun(engine: Engine, kafka: KafkaSettings, replay_id: int) -> Replay:
    found = replays.load(engine, replay_id)
    if found is None:
        raise WebhooksError(f"there is no replay {replay_id}")
    if found.group != kafka.group_id:
        raise WebhooksError(
            f"replay {replay_id} belongs to the group {found.group}, not {kafka.group_id}: set KAFKA_GROUP_ID to it"
        )
    if found.cancelled_at is not None:
        raise WebhooksError(f"replay {replay_id} was cancelled; begin another with --subscription and --since")
    if found.damage is not None:
        raise WebhooksError(
            f"replay {replay_id} cannot be resumed: {found.damage}; begin another with --subscription and --since"
        )
    if found.background:
        raise WebhooksError(
            f"replay {replay_id} is run by the API's processes, and goes on by itself: see /v1/replays/{replay_id}"
        )
    return found


@contextmanager
def _usage(topics: Sequence[str]) -> Iterator[None]:
    """Report an invalid option as a usage error."""
    try:
        yield
    except InvalidReplay as error:
        option = "topic" if error.option == "topics" else error.option
        what = "it" if error.index is None else topics[error.index]
        raise typer.BadParameter(f"{what} {error.why}", param_hint=f"--{option.replace('_', '-')}") from None


def _show(spans: Sequence[Span], planned: Plan, *, as_json: bool) -> None:
    """Print the offsets that a replay would read, by partition."""
    rows = parts(spans)
    records, since, until = number_of(spans), time_text(planned.since), time_text(planned.end)
    if as_json:
        times = {"since": since, "until": until}
        print_json({**times, "records": records, "partitions": rows, "stored": 0})
        return
    if rows:
        print_rows(("topic", "partition", "first_offset", "last_offset", "records"), rows)
    typer.echo(
        f"{number(records, 'record')} from {since} to {until} would be read; nothing was stored",
        err=True,
    )


def _begin(engine: Engine, kafka: KafkaSettings, planned: Plan, spans: Sequence[Span], *, yes: bool) -> int:
    receiver, records = planned.receiver, number_of(spans)
    times = f"from {time_text(planned.since)} to {time_text(planned.end)}"
    if not records:
        typer.echo(f"the topics hold no record {times}", err=True)
        raise typer.Exit
    allowed = receiver.options["rate_limit"]
    limit = "" if allowed is None else f" (its limit is {allowed:g})"
    typer.echo(
        f"{number(records, 'record')} {times} will be read; events of type {planned.event_type or receiver.event_type} "
        f"go to {printable(receiver.url)}, up to {planned.rate:g} per second{limit}",
        err=True,
    )
    if receiver.options["ordering"] == "key":
        typer.echo("the subscription is ordered by key: a replay does not keep that order", err=True)
    confirm(f"Replay this to subscription {receiver.id}?", yes=yes)
    with engine.begin() as connection:
        return create(connection, kafka.group_id, command_line_actor(), planned, spans, background=False)


def _store(engine: Engine, replay: Replay, choice: Choice, reader: LogReader) -> None:
    """Read and store the rest of a replay, showing progress; a signal stops it with status 0, between transactions."""
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


def _wait(engine: Engine, replay_id: int) -> None:
    found = replays.load(engine, replay_id)
    if found is not None and found.matched:
        watch(
            lambda: search.of_replay(engine, replay_id, found.matched),
            lambda: search.next_of_replay(engine, replay_id),
        )
