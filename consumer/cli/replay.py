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
from consumer.cli.watching import LINE, LOOK, STALLED, watch
from consumer.config.environment import check, environment, load
from consumer.config.settings import ConsumerGroupSettings, DatabaseSettings, KafkaSettings, TopicSettings
from consumer.errors import InvalidReplay, NotFound, WebhooksError
from consumer.intake.log_reader import LogReader
from consumer.ledger import replays, search
from consumer.ledger.replays import Replay, Span
from consumer.ops.changes import command_line_actor
from consumer.ops.replay_request import Plan, Wanted, cancel, create, parts, plan, resume, spans
from consumer.ops.replay_request import records as number_of
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Subscribed


def replay(
    *,
    subscription: Annotated[
        int | None,
        typer.Option(metavar="ID", parser=row_id, help="Subscription to send to; it gets the events that match it."),
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
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Keep the order of each record key; the subscription is ordered by key.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be read; store and send nothing.")
    ] = False,
    watched: Annotated[
        int | None, typer.Option("--watch", metavar="REPLAY", parser=row_id, help="Show the progress of a replay.")
    ] = None,
    cancelled: Annotated[
        int | None, typer.Option("--cancel", metavar="REPLAY", parser=row_id, help="Read no more of a replay.")
    ] = None,
    resumed: Annotated[
        int | None, typer.Option("--resume", metavar="REPLAY", parser=row_id, help="Go on with a cancelled replay.")
    ] = None,
    yes: YesOption = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until all events are sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: the result as JSON.")] = False,
) -> None:
    """Send a subscription the log's events of a time window.

    The workers read the log again, and send the events that match the subscription then, with their original ids and
    bodies, besides new events. The group's offsets stay as they are. Times are the records' timestamps.

    The command shows the progress until all is read and sent. Ctrl-C and SIGTERM end only the watching.

    Exit status 1 if the replay is cancelled, or any of its deliveries is given up or held.

    \b
    Examples:
      kafka-webhooks replay --subscription 7 --since 2h --dry-run
      kafka-webhooks replay --subscription 7 --since 2026-07-28T14:00Z --until 2026-07-28T15:00Z --yes
      kafka-webhooks replay --cancel 3
    """
    if as_json and not dry_run:
        raise typer.BadParameter("it needs --dry-run", param_hint="--json")
    known = {"--watch": watched, "--cancel": cancelled, "--resume": resumed}
    given = [name for name, each in known.items() if each is not None]
    if given:
        others = (subscription, since, until, event_type, topic, rate, dry_run or None, ordered or None)
        if len(given) > 1 or any(each is not None for each in others):
            raise typer.BadParameter("a replay keeps its options; give no others", param_hint=given[0])
        _go_on(watched=watched, cancelled=cancelled, resumed=resumed, no_wait=no_wait)
        return
    if subscription is None or since is None:
        missing = "--subscription" if subscription is None else "--since"
        raise typer.BadParameter("give it, or --watch, --cancel or --resume with a replay", param_hint=missing)
    values = environment()
    check((KafkaSettings, TopicSettings, DatabaseSettings), values)
    kafka = load(KafkaSettings, values)
    engine = open_database()
    wanted = Wanted(since, until, event_type, topic or (), rate, ordered)
    with _usage(wanted.topics):
        planned = plan(_subscription(engine, subscription), wanted, time.time())
    waiting = Waiting(f"Kafka at {kafka.bootstrap_servers}")
    with LogReader(kafka) as reader, waiting, _usage(wanted.topics):
        found = spans(reader, load(TopicSettings, values).topics, planned)
    if dry_run:
        _show(found, planned, as_json=as_json)
        return
    _confirm(planned, found, yes=yes)
    with engine.begin() as connection:
        begun = create(connection, kafka.group_id, command_line_actor(), planned, found)
    _follow(engine, begun, no_wait=no_wait)


def _go_on(*, watched: int | None, cancelled: int | None, resumed: int | None, no_wait: bool) -> None:
    """Watch, cancel or resume a replay that exists."""
    group = load(ConsumerGroupSettings, environment()).group_id
    engine, actor = open_database(), command_line_actor()
    replay_id = next(each for each in (watched, cancelled, resumed) if each is not None)
    item = _loaded(engine, replay_id)
    if item.group != group:
        raise WebhooksError(
            f"replay {replay_id} belongs to the group {item.group}, not {group}: set KAFKA_GROUP_ID to it"
        )
    if cancelled is not None:
        if not cancel(engine, actor, replay_id, time.time()):
            raise WebhooksError(f"replay {replay_id} has ended already: it is {item.state}")
        typer.echo(f"replay {replay_id} is cancelled; `kafka-webhooks replay --resume {replay_id}` goes on with it")
        return
    if resumed is not None:
        _subscription(engine, item.subscription_id)
        if not resume(engine, actor, replay_id):
            raise WebhooksError(f"replay {replay_id} is not cancelled: it is {item.state}")
    _follow(engine, replay_id, no_wait=no_wait)


def _loaded(engine: Engine, replay_id: int) -> Replay:
    found = replays.load(engine, replay_id)
    if found is None:
        raise WebhooksError(f"there is no replay {replay_id}")
    return found


def _subscription(engine: Engine, subscription_id: int) -> Subscribed:
    found = repository.get(engine, subscription_id)
    if found is None:
        raise NotFound("subscription", subscription_id)
    if not found.enabled:
        raise WebhooksError(f"subscription {found.id} is disabled: `subscriptions enable {found.id}` first")
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
        print_json({"since": since, "until": until, "records": records, "partitions": rows})
        return
    if rows:
        print_rows(("topic", "partition", "first_offset", "last_offset", "records"), rows)
    typer.echo(f"{number(records, 'record')} from {since} to {until} would be read; nothing was stored", err=True)


def _confirm(planned: Plan, spans: Sequence[Span], *, yes: bool) -> None:
    """Say what will be sent, and ask; exit if there is nothing to read."""
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
    if receiver.options["ordering"] == "key" and not planned.ordered:
        typer.echo("the subscription is ordered by key: without --ordered, this replay keeps no order", err=True)
    confirm(f"Replay this to subscription {receiver.id}?", yes=yes)


def _follow(engine: Engine, replay_id: int, *, no_wait: bool) -> None:
    if not _loaded(engine, replay_id).ended:
        advice = f"`kafka-webhooks replay --watch {replay_id}` shows its progress, `--cancel {replay_id}` ends it"
        typer.echo(f"replay {replay_id}: the workers send it; {advice}", err=True)
        if no_wait:
            return
    item = _watched(engine, replay_id)
    read = number(item.records - item.records_left, "record")
    if not item.ended:
        typer.echo(f"no longer watching replay {replay_id}; the workers send the rest", err=True)
        return
    typer.echo(f"replay {replay_id}: {read} read, and {item.state}")
    stored = search.of_replay(engine, replay_id, 0)
    if stored and not no_wait:
        total = stored.total()
        typer.echo(f"{number(total, 'delivery')} that failed at first or wait for their turn are stored", err=True)
        watch(lambda: search.of_replay(engine, replay_id, total), lambda: search.next_of_replay(engine, replay_id))
    if item.cancelled_at is not None:
        raise typer.Exit(1)


def _watched(engine: Engine, replay_id: int) -> Replay:
    """Show a replay's progress until it has ended, or a signal comes. Returns it as it is then."""
    item = _loaded(engine, replay_id)
    left, moved_at, line_at, told = item.records_left, time.monotonic(), time.monotonic(), False
    with signals_noted() as stopped, progress_bar(item.records) as draw:
        while True:
            item, now = _loaded(engine, replay_id), time.monotonic()
            draw(item.records - item.records_left, item.last_error or "")
            if item.ended or stopped():
                return item
            if item.records_left != left:
                left, moved_at, told = item.records_left, now, False
            elif not told and now - moved_at >= STALLED:
                reason = item.last_error or f"nothing has moved for {STALLED:.0f} s: is a worker running?"
                typer.echo(f"\n{reason}" if sys.stderr.isatty() else reason, err=True)
                told = True
            if not sys.stderr.isatty() and now - line_at >= LINE:
                typer.echo(f"{item.records - item.records_left:,} of {number(item.records, 'record')} read", err=True)
                line_at = now
            time.sleep(LOOK)
