"""`kafka-webhooks deliveries`."""

import time
from array import array
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Annotated

import typer
from sqlalchemy import Engine

from consumer.cli.console import (
    MOST_COUNTED,
    YesOption,
    bounded,
    confirm,
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
from consumer.cli.deployment import deployment, open_database
from consumer.cli.progress import Waiting, progress_bar, until_signal
from consumer.cli.watching import watch
from consumer.config.environment import load
from consumer.config.settings import KafkaSettings
from consumer.errors import WebhooksError
from consumer.http.urls import redact_url
from consumer.ledger import admin, backlogs, search, upkeep
from consumer.ledger.admin import DeliveryQuery, RedeliveryStep, StoredDelivery
from consumer.ledger.rows import NewDelivery
from consumer.ops import exhausted
from consumer.ops.changes import Changes, command_line_actor
from consumer.ops.waiting import waits_for
from consumer.subscriptions import repository
from models import Status

_BODY_SHOWN = 100_000  # characters
_LEAST_AGE = 86_400.0  # seconds: a younger row may still be the only record that its delivery is settled


class Ended(StrEnum):
    """The states of deliveries that are no longer owed."""

    EXHAUSTED = "exhausted"
    DELIVERED = "delivered"


StatusOption = Annotated[
    list[Status] | None, typer.Option("--status", metavar="STATUS", help="Only this status; may be repeated.")
]
SubscriptionOption = Annotated[
    int | None,
    typer.Option("--subscription", metavar="ID", parser=row_id, help="Only deliveries to this subscription."),
]
TypeOption = Annotated[
    str | None, typer.Option("--event-type", metavar="TYPE", help="Only deliveries of events of this type.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Only rows stored, tried or given up since: 2026-07-28T14:00 (UTC without a zone), or 2h."
    ),
]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only rows that have not changed since.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the deliveries are sent.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


def list_some(
    *,
    status: StatusOption = None,
    subscription: SubscriptionOption = None,
    event_type: TypeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="List at most this many.")] = 100,
    after: Annotated[int | None, typer.Option(metavar="ID", parser=row_id, help="Only ids after this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List stored deliveries, by id.

    parked: waits for its next attempt. blocked: waits behind an earlier delivery of its key. held: its subscription is
    disabled or paused. exhausted: given up. delivered: kept until the group's offset has passed its record.

    \b
    Examples:
      kafka-webhooks deliveries list --status exhausted --since 2d
      kafka-webhooks deliveries list --subscription 7 --json
    """
    chosen = _selection(status, subscription, event_type, since, until)
    found = admin.find(open_database(), chosen, limit=limit + 1, after_id=after)
    page = found[:limit]
    if as_json:
        print_json([_as_json(item) for item in page])
    elif page:
        columns = ("id", "status", "subscription", "event_type", "attempts", "changed", "next_attempt", "last_error")
        errors = [shortened(item.last.error, 60) if item.last else None for item in page]
        rows = [_as_json(item) | {"last_error": error} for item, error in zip(page, errors, strict=True)]
        print_rows(columns, rows)
    else:
        typer.echo("no such deliveries are stored", err=True)
    if len(found) > limit:
        typer.echo(f"there are more: --after {page[-1].id} shows them, --limit shows more at once", err=True)


def show(
    delivery_id: Annotated[int, typer.Argument(metavar="ID", parser=row_id)],
    *,
    body: Annotated[bool, typer.Option("--body", help="Show the event's body too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one delivery in full.

    Prints its record, its attempts, its errors, and the start of the last response.

    \b
    Examples:
      kafka-webhooks deliveries show 1234
      kafka-webhooks deliveries show 1234 --body --json
    """
    engine = open_database()
    found = admin.detail(engine, delivery_id)
    if found is None:
        raise WebhooksError(f"there is no delivery {delivery_id}; `deliveries list` shows the stored ones")
    text = found.event.body.decode(errors="backslashreplace")
    receiver = repository.get(engine, found.delivery.subscription_id)
    own_schedule = receiver.options["retry_schedule"] if receiver else None
    wait = waits_for(deployment(engine), found.delivery)
    fields = _as_json(found.delivery) | {
        "retry_schedule": own_schedule or "as in WEBHOOK_RETRY_SCHEDULE",
        "waits_for": wait and wait.text,
    }
    if as_json:
        print_json(fields | ({"body": text} if body else {}))
        return
    print_fields(fields)
    if body:
        typer.echo(f"\n{printable(shortened(text, _BODY_SHOWN))}")


def redeliver(
    delivery_ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", parser=row_id, help="Deliveries to send again.")
    ] = None,
    *,
    status: StatusOption = None,
    subscription: SubscriptionOption = None,
    event_type: TypeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_topic: Annotated[
        bool, typer.Option("--from-topic", help="Read them from KAFKA_EXHAUSTED_TOPIC: also those with no row left.")
    ] = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
) -> None:
    """Send deliveries again, now and on a new retry schedule.

    Name them by id, or choose them by options; without --status, options choose exhausted ones. The command marks them,
    and the workers send them with their original ids and bodies, while the command shows the progress. Ctrl-C ends the
    marking after the current batch, or else only the display.

    --from-topic sends those that were given up in the last week, or since --since, and are neither waiting nor
    delivered. It marks what it has sent for a week and leaves it out then.

    Exit status 1 if any delivery is given up again or is held, or if none could be marked.

    \b
    Examples:
      kafka-webhooks deliveries redeliver 1234 1235
      kafka-webhooks deliveries redeliver --subscription 7 --since 3d --yes
      kafka-webhooks deliveries redeliver --status exhausted --status parked --event-type user.created --no-wait
      kafka-webhooks deliveries redeliver --from-topic --subscription 7 --since 30d
    """
    filters = (status, subscription, event_type, since, until)
    if delivery_ids and any(each is not None for each in filters):
        raise typer.BadParameter("name ids or choose by options, not both", param_hint="ID")
    if from_topic and (delivery_ids or status):
        raise typer.BadParameter("takes no ids and no --status", param_hint="--from-topic")
    if not from_topic and not delivery_ids and all(each is None for each in filters):
        raise typer.BadParameter("name ids, or choose by options, such as --status exhausted", param_hint="ID")
    if any(each in {Status.BLOCKED, Status.DELIVERED} for each in status or ()):
        raise typer.BadParameter(
            "blocked deliveries are sent in their turn, delivered ones not again; choose exhausted, parked or held",
            param_hint="--status",
        )
    if from_topic:
        _redeliver_from_topic(subscription, event_type, since, until, yes=yes, no_wait=no_wait)
        return
    engine = open_database()
    if delivery_ids:
        chosen = DeliveryQuery(ids=sorted(set(delivery_ids)))
        total = len(set(delivery_ids))
    else:
        chosen = _selection(status or [Status.EXHAUSTED], subscription, event_type, since, until)
        total = admin.count(engine, chosen, MOST_COUNTED)
        if not total:
            typer.echo("no such deliveries are stored", err=True)
            return
        confirm(f"Redeliver {bounded(total, 'delivery')}?", yes=yes)
    marked = _mark(Changes(deployment(engine), command_line_actor()).redeliver(chosen), total)
    if delivery_ids and len(marked) < total:
        missing = ", ".join(str(each) for each in sorted(set(delivery_ids) - set(marked))[:10])
        typer.echo(
            f"not sent again: {missing} (not stored, delivered, blocked, or of a removed subscription)", err=True
        )
    _follow(engine, marked, no_wait=no_wait)


def _redeliver_from_topic(
    subscription: int | None, event_type: str | None, since: str | None, until: str | None, *, yes: bool, no_wait: bool
) -> None:
    now, kafka, engine = time.time(), load(KafkaSettings), open_database()
    begin, end = moment(since or "7d", now, "--since"), now if until is None else moment(until, now, "--until")
    by_user = Changes(deployment(engine), command_line_actor())

    def is_wanted(each: NewDelivery) -> bool:
        return subscription in {None, each.subscription_id} and event_type in {None, each.event.type}

    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        total = sum(map(len, exhausted.search(kafka, by_user.deployment, begin, end, is_wanted)))
    if not total:
        typer.echo("the topic has no such deliveries, or they were sent again from there before", err=True)
        return
    confirm(f"Redeliver {number(total, 'delivery')}, except what waits already?", yes=yes)
    batches = exhausted.search(kafka, by_user.deployment, begin, end, is_wanted)
    marked = _mark(exhausted.redeliver(by_user, kafka, batches), total)
    if not marked:
        typer.echo("not sent again: they wait already, were delivered, or are of a removed subscription", err=True)
    _follow(engine, marked, no_wait=no_wait)


def _follow(engine: Engine, marked: "array[int]", *, no_wait: bool) -> None:
    if not marked:
        raise typer.Exit(1)
    if not no_wait:
        watch(lambda: search.progress(engine, marked), lambda: search.next_of(engine, marked))


def adopt(
    *,
    from_group: Annotated[str, typer.Option(metavar="GROUP", help="The group that has the deliveries now.")],
    yes: YesOption = False,
) -> None:
    """Take over another group's deliveries.

    For a group that was renamed: its deliveries, and the positions of its subscriptions that are behind, move to the
    group of KAFKA_GROUP_ID, whose workers send them. The old group must have no running workers: deliveries that they
    send meanwhile are sent twice.

    \b
    Example:
      KAFKA_GROUP_ID=webhooks-2 kafka-webhooks deliveries adopt --from-group webhooks --yes
    """
    group = load(KafkaSettings).group_id
    if from_group == group:
        raise typer.BadParameter(
            f"{group} is the group of KAFKA_GROUP_ID itself; set that to the new group", param_hint="--from-group"
        )
    engine = open_database()
    total = admin.count(engine, DeliveryQuery(group=from_group), MOST_COUNTED)
    waiting = backlogs.count(engine, from_group)
    if not total and not waiting:
        typer.echo(f"the group {from_group} has no deliveries stored", err=True)
        return
    typer.echo(f"the group {from_group} must have no running workers: they would send deliveries twice", err=True)
    what = bounded(total, "delivery") + (f" and {number(waiting, 'cursor')}" if waiting else "")
    confirm(f"Move {what} from {from_group} to {group}?", yes=yes)
    moved = skipped = 0
    batches = admin.adopt(engine, from_group, group, time.time())
    with progress_bar(total if total <= MOST_COUNTED else None) as draw:
        for batch in until_signal(batches, f"the rest is still {from_group}'s; the same command moves it"):
            moved, skipped = moved + batch.moved, skipped + batch.skipped
            draw(moved + skipped, f"{moved:,} moved")
    positions = backlogs.adopt(engine, from_group, group)
    typer.echo(f"{number(moved, 'delivery')} moved to {group}")
    if positions:
        typer.echo(f"{number(positions, 'cursor')} moved to {group}")
    if waiting > positions:
        typer.echo(f"{number(waiting - positions, 'cursor')} deleted: {group} has its own at the same place")
    if skipped:
        typer.echo(f"{number(skipped, 'delivery')} left with {from_group}: {group} has stored the same ones")


def _selection(
    status: list[Status] | None,
    subscription: int | None,
    event_type: str | None,
    since: str | None,
    until: str | None,
) -> DeliveryQuery:
    now = time.time()
    return DeliveryQuery(
        statuses=tuple(each.value for each in status or ()),
        subscription=subscription,
        event_type=event_type,
        since=None if since is None else moment(since, now, "--since"),
        until=None if until is None else moment(until, now, "--until"),
    )


def _mark(batches: Iterator[RedeliveryStep], total: int) -> "array[int]":
    marked = array("q")  # eight bytes per id: there may be millions
    skipped = held = 0
    with progress_bar(total if total <= MOST_COUNTED else None) as draw:
        for batch in until_signal(batches, "those due now are sent, the rest is unchanged"):
            marked.extend(batch.ids)
            skipped, held = skipped + batch.skipped, held + batch.held
            draw(len(marked) + skipped, f"{len(marked):,} due now")
    if skipped:
        typer.echo(f"{number(skipped, 'delivery')} skipped: their subscriptions were removed", err=True)
    if len(marked) > held:
        typer.echo(f"{number(len(marked) - held, 'delivery')} due now; the workers send them")
    if held:
        typer.echo(f"{number(held, 'delivery')} held: their subscriptions are disabled or paused")
    return marked


def _next_attempt(item: StoredDelivery) -> float | None:
    return item.next_attempt_at if item.status == "parked" else None


def _as_json(item: StoredDelivery) -> dict[str, object]:
    first, last = item.first, item.last
    return {
        "id": item.id,
        "status": item.status,
        "group": item.group,
        "subscription": item.subscription_id,
        "url": redact_url(item.url),
        "event_type": item.event_type,
        "webhook_id": item.webhook_id,
        "topic": item.record.topic,
        "partition": item.record.partition,
        "offset": item.record.offset,
        "record_time": time_text(item.record.timestamp / 1000),
        "replay": item.replay or None,
        "attempts": item.attempt,
        "attempts_before_this_schedule": item.schedule_start,
        "next_attempt": time_text(_next_attempt(item)),
        "first_attempt": time_text(first.at) if first else None,
        "first_status": first.status if first else None,
        "first_error": first.error if first else None,
        "last_attempt": time_text(last.at) if last else None,
        "last_status": last.status if last else None,
        "last_error": last.error if last else None,
        "last_response": last.response if last else None,
        "stored": time_text(item.created_at),
        "changed": time_text(item.updated_at),
    }


def purge(
    *,
    older_than: Annotated[
        str,
        typer.Option(metavar="TIME", help="Delete rows that ended before: an age such as 30d, or a time: 2026-07-28."),
    ],
    status: Annotated[
        list[Ended] | None,
        typer.Option("--status", metavar="STATUS", help="exhausted (the default) or delivered; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows; delete nothing.")] = False,
    yes: YesOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Delete old deliveries that were given up.

    Also deletes the events that no other delivery needs, and the replays that ended before that time; of all consumer
    groups. Parked, blocked and held deliveries are still owed, and never deleted. Workers delete delivered rows
    themselves; --status delivered is for the rows of a group without workers.

    Each transaction deletes a thousand rows at most; workers may run meanwhile. Ctrl-C and SIGTERM end the command
    after the current transaction.

    A deleted delivery cannot be sent again. Its row also tells a restarted worker that the delivery is settled: keep
    rows for a month, and no less than the longest time that a partition's offset was held.

    \b
    Examples:
      kafka-webhooks deliveries purge --older-than 30d --dry-run
      kafka-webhooks deliveries purge --older-than 30d --yes
    """
    now = time.time()
    before = moment(older_than, now, "--older-than")
    if before > now - _LEAST_AGE:
        raise typer.BadParameter(
            "at least a day: a younger row may be the only record that its delivery is settled",
            param_hint="--older-than",
        )
    statuses = [Status(each.value) for each in status or [Ended.EXHAUSTED]]
    engine, when = open_database(), time_text(before)
    if dry_run:
        done = {
            "deliveries": sum(map(len, upkeep.ended_before(engine, statuses, before))),
            "replays": upkeep.replays_ended_before(engine, before),
        }
    else:
        total = upkeep.counted(upkeep.ended_before(engine, statuses, before), MOST_COUNTED)
        replays = upkeep.replays_ended_before(engine, before)
        if total or replays:
            confirm(
                f"Delete {bounded(total, 'delivery')} and {number(replays, 'replay')} that ended before {when}?",
                yes=yes,
            )
        done = _delete(engine, statuses, before, total)
    if as_json:
        print_json({"before": when, **done})
        return
    nouns = {"deliveries": "delivery", "payloads": "payload", "replays": "replay"}
    *others, last = (number(count, nouns[name]) for name, count in done.items())
    typer.echo(f"{', '.join(others)} and {last} {'would be deleted' if dry_run else 'deleted'}")


def _delete(engine: Engine, statuses: Collection[Status], before: float, total: int) -> dict[str, int]:
    deliveries = payloads = 0
    batches = upkeep.purge(engine, statuses, before)
    with progress_bar(total if total <= MOST_COUNTED else None) as draw:
        for batch in until_signal(batches, "the rest is unchanged; the same command deletes it"):
            deliveries, payloads = deliveries + batch.deliveries, payloads + batch.payloads
            draw(deliveries, f"{deliveries:,} deleted")
    return {"deliveries": deliveries, "payloads": payloads, "replays": upkeep.purge_replays(engine, before)}
