"""`kafka-webhooks subscriptions backtest`."""

import time
from typing import Annotated

import typer

from consumer.cli.console import moment, number, print_json, print_rows, printable, shortened
from consumer.cli.deployment import configure, log_of
from consumer.cli.progress import Waiting, progress_bar, signals_noted
from consumer.config.environment import environment
from consumer.intake.log_reader import LogReader
from consumer.ops.backtest import Backtest, options_of
from consumer.ops.backtest import backtest as test
from consumer.ops.find import whole
from consumer.ops.replay_request import Log, records
from consumer.ops.walk import Bounds

_SHOWN = 200  # characters of a body


def backtest(
    *,
    event_type: Annotated[
        list[str], typer.Option("--type", metavar="TYPE", help="Event type or pattern. May be repeated.")
    ],
    event_filter: Annotated[
        str | None, typer.Option("--filter", metavar="CEL", help="Only events for which this is true.")
    ] = None,
    projection: Annotated[
        str | None, typer.Option(metavar="CEL", help="Its value is sent in place of the data.")
    ] = None,
    payload_format: Annotated[str | None, typer.Option("--format", metavar="FORMAT", help="Form of the body.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where to send, with expressions in braces.")] = None,
    method: Annotated[str | None, typer.Option(metavar="METHOD", help="POST, PUT, PATCH or DELETE.")] = None,
    topics: Annotated[str | None, typer.Option(metavar="NAMES", help="Only events of these topics.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only events of this tenant.")] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Since: 2026-07-28T14:00 (UTC without a zone), or an age: 2h, 7d.")
    ] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show how many events of the log a subscription would get, and the first ones as they would be sent.

    Nothing is sent or stored. Ctrl-C ends the reading after the current part, and shows what was found so far.

    \b
    Examples:
      kafka-webhooks subscriptions backtest --type 'order.*' --filter 'data.amount > 100' --since 7d
      kafka-webhooks subscriptions backtest --type order.paid --type 'invoice.*' --projection '{"id": data.id}' --json
    """
    given = {
        "event_types": event_type,
        "event_filter": event_filter,
        "projection": projection,
        "payload_format": payload_format,
        "url": url,
        "method": method,
        "topics": topics,
        "tenant": tenant,
    }
    meant = options_of({name: value for name, value in given.items() if value is not None})
    begin = moment(since, time.time(), "--since")
    configure()
    log = log_of(environment())
    with Waiting(f"Kafka at {log.kafka.bootstrap_servers}"), LogReader(log.kafka) as reader:
        found = Backtest(whole(reader, log, begin))
    _read(log, meant, found)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found, url)


def _read(log: Log, meant: dict[str, object], found: Backtest) -> None:
    total = records(found.left)
    with signals_noted() as stopped, progress_bar(total) as draw:
        while found.left and not stopped():
            test(log, meant, found, Bounds())
            draw(total - records(found.left), f"{found.matched:,} match")


def _print(found: Backtest, url: str | None) -> None:
    events = number(found.events, "event")
    typer.echo(f"{found.matched:,} of {events} of these types match, in {number(found.records, 'record')}")
    told = found.as_json()
    for title, column in (("by_type", "event_type"), ("by_hour", "hour"), ("refused", "why")):
        counts: dict[str, int] = told[title]  # type: ignore[assignment]  # as Backtest makes it
        if counts:
            typer.echo()
            print_rows((column, "events"), ({column: name, "events": f"{each:,}"} for name, each in counts.items()))
    if found.samples:
        typer.echo("\nthe first ones, as they would be sent:")
    for each in found.samples:
        place = f"{each.place.topic}[{each.place.partition}]@{each.place.offset}"
        body = each.wrong if each.body is None else each.body.decode(errors="replace")
        request = "" if url is None or each.request is None else f"{each.request}  "
        typer.echo(f"  {place}  {each.event_type}  {printable(request + shortened(body or '', _SHOWN))}")
    if found.left:
        typer.echo(f"{number(records(found.left), 'record')} of the log were not read", err=True)
