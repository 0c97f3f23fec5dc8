"""`kafka-webhooks deliveries purge`."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.console import MOST_COUNTED, YesOption

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sized

    from sqlalchemy import Engine

    from models import Status

_LEAST_AGE = 86_400.0  # seconds: a younger row may still be the only record that its delivery is settled


class Ended(StrEnum):
    """The states of deliveries that are no longer owed."""

    EXHAUSTED = "exhausted"
    DELIVERED = "delivered"


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
    from consumer.cli.console import bounded, confirm, moment, number, open_database, print_json, time_text
    from consumer.ledger import upkeep
    from models import Status

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
        counts = {
            "deliveries": _count(upkeep.ended_before(engine, statuses, before)),
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
        counts = _delete(engine, statuses, before, total)
    if as_json:
        print_json({"before": when, **counts})
        return
    nouns = {"deliveries": "delivery", "payloads": "payload", "replays": "replay"}
    *others, last = (number(count, nouns[name]) for name, count in counts.items())
    typer.echo(f"{', '.join(others)} and {last} {'would be deleted' if dry_run else 'deleted'}")


def _count(steps: "Iterable[Sized]") -> int:
    """The rows of all steps; there may be a million, so it shows progress."""
    from consumer.cli.console import progress_bar

    rows = 0
    with progress_bar(None) as draw:
        for step in steps:
            rows += len(step)
            draw(rows, f"{rows:,} counted")
    return rows


def _delete(engine: "Engine", statuses: "Collection[Status]", before: float, total: int) -> dict[str, int]:
    from consumer.cli.console import bounded_length, progress_bar, until_signal
    from consumer.ledger import upkeep

    deliveries = payloads = 0
    batches = upkeep.purge(engine, statuses, before)
    with progress_bar(bounded_length(total)) as draw:
        for batch in until_signal(batches, "the rest is unchanged; the same command deletes it"):
            deliveries, payloads = deliveries + batch.deliveries, payloads + batch.payloads
            draw(deliveries, f"{deliveries:,} deleted")
    return {"deliveries": deliveries, "payloads": payloads, "replays": upkeep.purge_replays(engine, before)}
