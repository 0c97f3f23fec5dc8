"""`kafka-webhooks deliveries settle`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.console import YesOption, row_id

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from consumer.ledger.marks import Subject

_LOOK = 0.5  # seconds between two queries
_PATIENCE = 150.0  # seconds; a worker retries a set-aside delivery at least once a minute, and a try may take 30 s
_FIRST_WORD = 10.0  # seconds until the command says that it is waiting
_NOT_DONE = (
    "no worker has acted in {:.0f} s: none owns {} in the group {}, or its owner has set no such delivery aside "
    "(its /readyz names those that it has). The decision stands until the group's offset has passed the record"
)


def settle(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", min=0, max=2**31 - 1)],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0, max=2**63 - 1)],
    *,
    subscription: Annotated[
        int | None,
        typer.Option(
            "--subscription", metavar="ID", parser=row_id, help="Only the delivery to this subscription; default: all."
        ),
    ] = None,
    dead_letter: Annotated[
        bool, typer.Option("--dead-letter", help="Settle it by writing its record to the dead-letter topic.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Settle it without a dead letter; the log has the details.")
    ] = False,
    yes: YesOption = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until a worker has acted.")] = False,
) -> None:
    """Decide on a delivery that the database always refuses.

    A worker's /readyz names such a delivery: the database keeps refusing its row, and its record's offset is held. This
    command only notes the decision, for the group of KAFKA_GROUP_ID. The worker that owns the partition acts on it once
    the database has refused the row again, within a minute. A delivery that is stored or delivered meanwhile stays so.
    The decision stands until the group's offset has passed the record, over crashes and rebalances; a later decision
    replaces it.

    The receiver does not get the event, unless it is published or replayed later.

    The command waits until a worker has acted; Ctrl-C ends only the waiting. Exit status 1 if no worker acts within two
    and a half minutes, or if the delivery is stored: see `deliveries list`.

    \b
    Examples:
      kafka-webhooks deliveries settle orders 3 1234 --subscription 7 --dead-letter
      kafka-webhooks deliveries settle orders 3 1234 --give-up --yes
    """
    from consumer.cli.console import confirm, open_database
    from consumer.config.environment import load
    from consumer.config.settings import KafkaSettings
    from consumer.ledger import marks
    from consumer.ledger.admin import of_record
    from models import Wish
    from models.mark import ALL_SUBSCRIPTIONS

    if subscription == ALL_SUBSCRIPTIONS:
        raise typer.BadParameter(
            f"{ALL_SUBSCRIPTIONS} would decide for all subscriptions; to do that, leave the option out",
            param_hint="--subscription",
        )
    if dead_letter == give_up:
        raise typer.BadParameter("give one of --dead-letter and --give-up", param_hint="--dead-letter")
    kafka = load(KafkaSettings)
    engine = open_database()
    record = f"record {offset} of {topic}[{partition}]"
    stored = of_record(engine, kafka.group_id, topic, partition, offset)
    if subscription in stored:
        row, status = stored[subscription]
        typer.echo(f"the delivery of {record} to subscription {subscription} is stored: row {row}, {status}", err=True)
        raise typer.Exit(1)
    for each, (row, status) in sorted(stored.items()):
        typer.echo(f"left alone: the delivery to subscription {each}, which is stored: row {row}, {status}", err=True)
    whose = "all subscriptions" if subscription is None else f"subscription {subscription}"
    end = f"write it to {kafka.dead_letter_topic}" if dead_letter else "give it up"
    confirm(f"If {record} cannot be stored for {whose}, do not deliver it and {end}?", yes=yes)
    subject = marks.Subject(topic, partition, offset, ALL_SUBSCRIPTIONS if subscription is None else subscription)
    marks.decide(engine, kafka.group_id, subject, Wish.DEAD_LETTER if dead_letter else Wish.GIVE_UP)
    typer.echo(f"noted for the worker that owns {topic}[{partition}] in the group {kafka.group_id}")
    if not no_wait:
        _wait(engine, kafka.group_id, subject)


def _wait(engine: "Engine", group: str, subject: "Subject") -> None:
    from consumer.cli.console import signals_noted

    began, told = time.monotonic(), False
    with signals_noted() as stopped:
        while not stopped():
            if (outcome := _outcome(engine, group, subject)) is not None:
                typer.echo(outcome)
                return
            waited = time.monotonic() - began
            if waited >= _PATIENCE:
                typer.echo(_NOT_DONE.format(waited, f"{subject.topic}[{subject.partition}]", group), err=True)
                raise typer.Exit(1)
            if not told and waited >= _FIRST_WORD:
                typer.echo("waiting for the worker's next try, once a minute", err=True)
                told = True
            time.sleep(_LOOK)
    typer.echo("no longer watching; the decision stands", err=True)


def _outcome(engine: "Engine", group: str, subject: "Subject") -> str | None:
    """The decision's outcome so far; None while no worker has acted on it."""
    from consumer.ledger import marks
    from consumer.ledger.admin import of_record

    decision = marks.decision(engine, group, subject)
    if decision is None:
        return "settled: the group's offset has passed the record"
    if decision.done_at is not None:
        return "settled by decision: " + decision.wish.value.replace("_", " ")
    stored = of_record(engine, group, *subject[:3]).get(subject.subscription_id)
    return None if stored is None else f"it could be stored after all: row {stored[0]}, {stored[1]}"
