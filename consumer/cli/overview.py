"""`kafka-webhooks check` and `kafka-webhooks top`: what an operator looks at."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.cli.console import print_json, printable, shortened, time_text
from consumer.cli.deployment import configure
from consumer.cli.progress import Waiting, signals_noted
from consumer.config.environment import check as check_settings
from consumer.config.environment import environment, load
from consumer.config.settings import DatabaseSettings, KafkaSettings, LogSettings, RuleSettings, TopicSettings
from consumer.crypto.vault import Vault
from consumer.database.engine import create_engine
from consumer.errors import SettingsError
from consumer.matching.destinations import rules_of
from consumer.ops.check import check_all
from consumer.ops.overview import FailingReceiver, LoadedReceiver, Overview, overview
from consumer.telemetry.logs import configure_logging


def check(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check everything that a worker needs.

    Checks settings, Kafka, topics, the group, the schema registry, database, tables, subscriptions, receivers and
    secrets. Each prints a line; a line that fails (✗) says what to do. A line with ! is a warning: a worker can start,
    but receivers fail, or records became dead letters in the last hour.

    Exit status 1 if any check fails; a warning is not a failure.

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
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


T = TypeVar("T")

_REFRESH = 2.0  # seconds
_MOST_PARTITIONS = 20  # of the table of lags: the ones furthest behind


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
        create_engine(database),
        kafka,
        load(TopicSettings, values).topics,
        Vault(database.encryption_keys),
        rules_of(load(RuleSettings, values)),
    )
    if as_json or once or not sys.stdout.isatty():
        found = look()
        if as_json:
            print_json(_as_json(found))
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


def _drawn(found: Overview, group: str) -> Group:
    parts: list[Table | Text] = [Text(f"group {group} at {time_text(found.at)}", "bold")]
    parts += [Text(f"{each.part}: {each.reason}", "red") for each in found.faults]
    if found.dead_letters:
        hint = "kafka-webhooks dead-letters publish sends them again, once their cause is removed"
        parts.append(Text(f"dead letters in the last hour: {found.dead_letters:,}; {hint}", "red"))
    if found.states is not None:
        named = {state: _count(number, found.most_counted) for state, number in found.states.items()}
        parts.append(_table("Stored deliveries", tuple(named), [tuple(named.values())]))
    parts += _receivers(found)
    if found.lag is not None:
        behind = sorted(found.lag, key=lambda each: -each.records)[:_MOST_PARTITIONS]
        title = f"Lag: {sum(each.records for each in found.lag):,} records on {len(found.lag):,} partitions"
        columns = ("topic", "partition", "committed", "end", "records")
        parts.append(
            _table(title, columns, [(e.topic, e.partition, e.committed, e.end, f"{e.records:,}") for e in behind])
        )
    return Group(*parts)


def _receivers(found: Overview) -> Iterable[Table]:
    most = found.most_counted
    if found.failing:
        yield _table(
            "Failing subscriptions",
            ("id", "since", "waiting", "url", "last error"),
            [
                (
                    each.subscription.subscription_id,
                    time_text(each.subscription.since.timestamp()),
                    _count(each.waiting, most),
                    each.subscription.url,
                    shortened(each.last.error, 60) if each.last else None,
                )
                for each in found.failing
            ],
        )
    if found.loaded:
        yield _table(
            "Most deliveries waiting",
            ("id", "waiting", "url"),
            [(each.subscription_id, _count(each.waiting, most), _url(each)) for each in found.loaded],
        )
    if found.disabled:
        yield _table(
            "Disabled subscriptions",
            ("id", "url", "reason"),
            [(each.subscription_id, each.url, each.reason) for each in found.disabled],
        )
    if found.problematic is not None and found.problematic.subscriptions:
        yield _table(
            f"Subscriptions with problems, of {found.problematic.looked_at:,} looked at",
            ("id", "url", "state"),
            [(each.id, each.url, each.state) for each in found.problematic.subscriptions],
        )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if value is None else printable(str(value))) for value in row))
    return table


def _count(number: int, most: int) -> str:
    return f"{number:,}" if number <= most else f"more than {most:,}"


def _as_json(found: Overview) -> dict[str, object]:
    """The overview; a part that is missing is null."""

    def listed(items: Iterable[T] | None, of: Callable[[T], dict[str, object]]) -> list[dict[str, object]] | None:
        return None if items is None else [of(each) for each in items]

    def failing(each: FailingReceiver) -> dict[str, object]:
        last = each.last
        told = {"since": time_text(each.subscription.since.timestamp()), "waiting": each.waiting}
        told |= {"last_error": last and last.error, "last_status": last and last.status}
        return each.subscription._asdict() | told | {"last_attempt": last and time_text(last.at)}

    problematic = found.problematic
    return {
        "at": time_text(found.at),
        "counted_up_to": found.most_counted,
        "states": found.states,
        "loaded": listed(
            found.loaded,
            lambda each: {
                "subscription_id": each.subscription_id,
                "waiting": each.waiting,
                "url": each.subscription and _url(each),
            },
        ),
        "failing": listed(found.failing, failing),
        "disabled": listed(found.disabled, lambda each: each._asdict()),
        "problematic": problematic
        and {
            "looked_at": problematic.looked_at,
            "subscriptions": [{"id": e.id, "url": e.url, "state": e.state} for e in problematic.subscriptions],
        },
        "lag": listed(found.lag, lambda each: each._asdict() | {"records": each.records, "overtaken": each.overtaken}),
        "dead_letters": found.dead_letters,
        "missing": [each._asdict() for each in found.missing],
    }


def _url(receiver: LoadedReceiver) -> str:
    return receiver.subscription.url if receiver.subscription else "removed"
