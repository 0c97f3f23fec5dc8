"""`kafka-webhooks subscriptions attempts`."""

import time
from typing import Annotated

import typer

from consumer.cli.console import moment, print_json, print_rows, time_text
from consumer.cli.deployment import IdArgument, configure
from consumer.cli.progress import Waiting
from consumer.config.environment import load
from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.ops.attempt_pages import FAR, Wanted
from consumer.ops.attempt_statistics import Success
from consumer.ops.attempts import AttemptHistory

PATIENCE = 60.0  # seconds of reading for the numbers, and for the list


def attempts(
    subscription_id: IdArgument,
    *,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="At or after: 2026-07-28T14:00 (UTC), 2h.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show how many of a subscription's attempts succeed, their times, and its latest attempts.

    Of the last hour, 24 hours and 7 days, unless you name a time; with --json also of each hour of the last day. The
    numbers are exact where the topic of attempts was read whole, else estimates from a sample. Attempts are listed
    newest first, from what can be read in a minute.

    \b
    Examples:
      kafka-webhooks subscriptions attempts 7
      kafka-webhooks subscriptions attempts 7 --since 3d --until 2d --limit 1000 --json
    """
    kafka, now = load(KafkaSettings), time.time()
    if kafka.attempts_topic is None:
        raise SettingsError("KAFKA_ATTEMPTS_TOPIC is not set: set it as for the workers, which write attempts there")
    end = FAR if until is None else moment(until, now, "--until")
    wanted = Wanted(subscription_id, 0.0 if since is None else moment(since, now, "--since"), end)
    configure()
    history, told = AttemptHistory(kafka, kafka.attempts_topic), {}
    with Waiting(f"Kafka at {kafka.bootstrap_servers}"):
        if since is until is None:
            statistics = history.statistics(subscription_id, seconds=PATIENCE)
            for name, part in (("windows", statistics.windows), ("by_hour", statistics.by_hour)):
                told[name] = [{**each._asdict(), "since": time_text(each.since)} for each in part]
        stop, page = time.monotonic() + PATIENCE, history.page(wanted, limit, None)
        found = page.attempts
        while page.position is not None and len(found) < limit and time.monotonic() < stop:
            page = history.page(wanted, limit - len(found), page.position)
            found += page.attempts
    rows = [{**each._asdict(), "at": time_text(each.at)} for each in found]
    if as_json:
        print_json(told | {"attempts": rows})
        return
    if told:
        print_rows(Success._fields, map(_readable, told["windows"]))
        typer.echo()
    print_rows(("at", "outcome", "status", "seconds", "attempt", "event_type", "webhook_id", "error"), rows)
    if page.position is not None:
        earlier = time_text(page.position.before[0] + 1)
        typer.echo(f"there may be earlier ones: give --limit, or --until {earlier}", err=True)


def _readable(row: dict[str, object]) -> dict[str, object]:
    """The row with its shares in per cent; 100 % and 0 % stand for exactly all and none."""
    shares = {name: each for name in ("share", "low", "high") if isinstance(each := row[name], float)}
    return row | {
        name: f"{min(max(each, 1e-4), 0.9999) if 0 < each < 1 else each:.2%}" for name, each in shares.items()
    }
