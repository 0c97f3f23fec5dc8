"""`kafka-webhooks dead-letters`."""

import time
from typing import Annotated

import typer

from consumer.cli.console import YesOption

dead_letters = typer.Typer(
    name="dead-letters", help="Dead letters: records that could not become events.", no_args_is_help=True
)


@dead_letters.command()
def publish(
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
    from consumer.cli.console import confirm, moment, number, print_rows, progress_bar, until_signal
    from consumer.cli.deployment import changes
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import load
    from consumer.config.settings import KafkaSettings
    from consumer.ops import dead_letters as letters

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
