"""`kafka-webhooks check` and `kafka-webhooks top`: what an operator looks at."""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.cli.app import USAGE
from consumer.cli.console import print_json, printable, shortened, time_text
from consumer.cli.deployment import configure, opened
from consumer.cli.progress import Waiting, signals_noted
from consumer.config.environment import check as check_settings
from consumer.config.environment import environment, load
from consumer.config.settings import DatabaseSettings, KafkaSettings, LogSettings, RuleSettings, TopicSettings
from consumer.crypto.vault import Vault
from consumer.errors import SettingsError
from consumer.matching.destinations import rules_of
from consumer.ops.check import check_all
from consumer.ops.overview import FailingReceiver, LoadedReceiver, Overview, overview
from consumer.subscriptions.health import ExpiringBacklog, ListedSubscription, time_left
from consumer.telemetry.logs import configure_logging
from models import Status

_REFRESH = 2.0  # seconds
_MOST_ROWS = 20  # of a table on the screen: of the lags, those of the partitions furthest behind
# By part of the overview: the title of its table, and the columns.
_TABLES = {
    "failing": ("Failing subscriptions", ("subscription_id", "since", "waiting", "url", "last_error")),
    "loaded": ("Most deliveries waiting", ("subscription_id", "waiting", "url")),
    "disabled": ("Disabled subscriptions", ("subscription_id", "url", "reason")),
    "paused": ("Paused subscriptions", ("subscription_id", "paused_at", "url", "reason")),
    "expiring": ("Kafka soon removes events of", ("subscription_id", "kept_for", "url")),
    "problematic": ("Subscriptions with problems, among the oldest", ("subscription_id", "url", "state")),
    "lag": ("Partitions", ("topic", "partition", "committed", "end", "records")),
}


def check(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check everything that a worker needs.

    Checks settings, Kafka, topics, the group, the schema registry, database, tables, subscriptions, receivers and
    secrets. Each prints a line; a line that fails (✗) says what to do. A line with ! is a warning: a worker can start,
    but receivers fail, or records became dead letters in the last hour.

    Exit status 1 if any check fails, and 2 if a setting does; a warning is not a failure.

    Example: kafka-webhooks check --json
    """
    values = environment()
    with suppress(SettingsError):  # check_all reports it
        configure_logging(load(LogSettings, values).log_level)
    findings = []
    looks, waiting = check_all(values), Waiting("an answer, at most ten seconds for each part")
    while True:
        with waiting:
            finding = next(looks, None)
        if finding is None:
            break
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'✗' if not finding.ok else '!' if finding.warning else '✓'} {finding.part}: {finding.text}")
    if as_json:
        print_json([finding._asdict() for finding in findings])
    failed = {finding.part for finding in findings if not finding.ok}
    if failed:
        raise typer.Exit(USAGE if failed & {"settings", "mappings"} else 1)


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print the overview once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, once.")] = False,
) -> None:
    """Show stored deliveries, failures, lag and dead letters.

    Refreshes every two seconds until Ctrl-C; without a terminal it prints the overview once. A part that gives no
    answer within five seconds is named, and the others are shown.

    Exit status 1 if, with --once or --json, a part is missing.

    \b
    Examples:
      kafka-webhooks top
      kafka-webhooks top --once
      kafka-webhooks top --json
    """
    values = environment()
    check_settings((KafkaSettings, TopicSettings, DatabaseSettings, RuleSettings), values)
    configure()
    database, kafka = load(DatabaseSettings, values), load(KafkaSettings, values)
    look = partial(
        overview,
        opened(database),
        kafka,
        load(TopicSettings, values).topics,
        Vault(database.encryption_keys),
        rules_of(load(RuleSettings, values)),
    )
    if as_json or once or not sys.stdout.isatty():
        found = look()
        if as_json:
            print_json(_told(found))
        else:
            Console().print(_drawn(found, kafka.group_id))
        if found.missing:
            raise typer.Exit(1)
        return
    with signals_noted() as stopped, Live(screen=True, auto_refresh=False) as live:
        while not stopped():
            live.update(_drawn(look(), kafka.group_id), refresh=True)
            until = time.monotonic() + _REFRESH
            while time.monotonic() < until and not stopped():
                time.sleep(0.1)


def _told(found: Overview) -> dict[str, Any]:
    """The overview, with a row for each subscription and partition; a part that is missing is null."""

    def rows(items: Iterable[Any] | None, of: Callable[[Any], dict[str, object]]) -> list[dict[str, object]] | None:
        return None if items is None else [of(each) for each in items]

    def failing(each: FailingReceiver) -> dict[str, object]:
        told = {"since": time_text(each.subscription.since.timestamp()), "waiting": each.waiting}
        told |= dict.fromkeys(("last_error", "last_status", "last_attempt"))
        if each.last is not None:
            last = {"last_error": each.last.error, "last_status": each.last.status}
            told |= last | {"last_attempt": time_text(each.last.at)}
        return each.subscription._asdict() | told

    def listed(each: ListedSubscription) -> dict[str, object]:
        return each._asdict() | {"paused_at": each.paused_at and time_text(each.paused_at.timestamp())}

    def loaded(each: LoadedReceiver) -> dict[str, object]:
        url = each.subscription.url if each.subscription else "removed"
        return {"subscription_id": each.subscription_id, "waiting": each.waiting, "url": url}

    def expiring(each: ExpiringBacklog) -> dict[str, object]:
        at = each.expires.timestamp()
        return each._asdict() | {"expires": time_text(at), "kept_for": time_left(at - found.at)}

    problematic = found.problematic and found.problematic.subscriptions
    lag = found.lag and sorted(found.lag, key=lambda each: -each.records)
    return {
        "at": time_text(found.at),
        "counted_up_to": found.most_counted,
        "states": found.states,
        "failing": rows(found.failing, failing),
        "loaded": rows(found.loaded, loaded),
        "disabled": rows(found.disabled, listed),
        "paused": rows(found.paused, listed),
        "expiring": rows(found.expiring, expiring),
        "problematic": rows(problematic, lambda e: {"subscription_id": e.id, "url": e.url, "state": e.state}),
        "lag": rows(lag, lambda each: each._asdict() | {"records": each.records, "overtaken": each.overtaken}),
        "dead_letters": found.dead_letters,
        "missing": [each._asdict() for each in found.missing],
    }


def _drawn(found: Overview, group: str) -> Group:
    told = _told(found)
    parts: list[Table | Text] = [Text(f"group {group} at {told['at']}", "bold")]
    parts += [Text(f"{each.part}: {each.reason}", "red") for each in found.faults]
    if found.dead_letters:
        hint = "kafka-webhooks dead-letters publish sends them again, once their cause is removed"
        parts.append(Text(f"dead letters in the last hour: {found.dead_letters:,}; {hint}", "red"))
    if found.lag is not None:
        parts.append(Text(f"Lag: {sum(each.records for each in found.lag):,} records"))
    tables = [("Stored deliveries", tuple(found.states), [found.states])] if found.states is not None else []
    tables += [(title, columns, told[part]) for part, (title, columns) in _TABLES.items() if told[part]]
    for title, columns, rows in tables:
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")  # a URL is never cut
        for row in rows[:_MOST_ROWS]:
            table.add_row(*(Text(_cell(column, row[column], found.most_counted)) for column in columns))
        parts.append(table)
    return Group(*parts)


def _cell(column: str, value: object, most: int) -> str:
    if isinstance(value, int) and column in {"waiting", "records", *Status}:
        return f"more than {most:,}" if value > most and column != "records" else f"{value:,}"
    return "-" if value is None else shortened(printable(str(value)), 100)
