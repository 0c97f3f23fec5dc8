"""`kafka-webhooks audit deliveries`."""

import csv
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from consumer.cli.console import moment, number, print_json, print_rows, row_id
from consumer.cli.deployment import configure, deployment, log_of, open_database
from consumer.cli.progress import Waiting, progress_bar, signals_noted
from consumer.config.environment import environment
from consumer.ops.delivery_audit import COLUMNS, DeliveryAudit, Missing, audit

SHOWN = 20  # missing deliveries, for people


class Sheet(StrEnum):
    """What is printed as CSV."""

    HOURS = "hours"
    MISSING = "missing"


def deliveries(
    *,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Since: 2026-07-28T14:00 (UTC without a zone), or an age: 2h, 7d.")
    ] = "24h",
    until: Annotated[str, typer.Option(metavar="TIME", help="Until: the same.")] = "0s",
    subscription: Annotated[
        int | None, typer.Option(parser=row_id, metavar="ID", help="Only deliveries to this subscription.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only subscriptions of this tenant.")] = None,
    as_csv: Annotated[
        Sheet | None, typer.Option("--csv", metavar="SHEET", help="As CSV: `hours`, or `missing` deliveries.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Prove that each event of the log was delivered, is still owed, or was given up; name what is missing.

    Reads the log, the attempts (KAFKA_ATTEMPTS_TOPIC) and the database, while workers run. Counts for each topic and
    hour: matched = delivered + waiting + given up + covered by a cursor + changed + missing. Changed: nothing is on
    record, but the subscription was changed later, and may not have matched then. The present subscriptions count, from
    when each was registered. Exit status 1 if deliveries are missing, or the audit was stopped.

    \b
    Examples:
      kafka-webhooks audit deliveries --since 7d
      kafka-webhooks audit deliveries --since 2026-07-01 --until 2026-08-01 --tenant acme --csv hours > july.csv
    """
    now = time.time()
    begin, end = moment(since, now, "--since"), moment(until, now, "--until")
    if begin >= end:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    values = environment()
    configure()
    log, found = log_of(values), DeliveryAudit()
    with signals_noted() as stopped, progress_bar(None) as draw, Waiting(f"Kafka at {log.kafka.bootstrap_servers}"):
        steps = audit(log, deployment(open_database()), log.kafka.attempts_topic, begin, end, tenant, subscription)
        for found in steps:
            draw(0, f"{number(found.left, 'record')} left")
            if stopped():
                break
    _print(found, as_csv, as_json=as_json)
    for fault in found.faults:
        typer.echo(fault, err=True)
    if stopped():
        typer.echo(f"stopped: {number(found.left, 'record')} of the log were not audited", err=True)
    if stopped() or found.missing:
        raise typer.Exit(1)


def _print(found: DeliveryAudit, as_csv: Sheet | None, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
    elif as_csv is not None:
        of_hours = as_csv is Sheet.HOURS
        rows: list[dict[str, Any]] = found.rows() if of_hours else [each.as_json() for each in found.missing]
        writer = csv.DictWriter(sys.stdout, COLUMNS if of_hours else Missing._fields)
        writer.writeheader()
        writer.writerows(rows)
    else:
        shown = (
            {name: f"{each:,}" if isinstance(each, int) else each for name, each in row.items()} for row in found.rows()
        )
        print_rows(COLUMNS, shown)
        total = found.total
        typer.echo(f"\n{total['matched']:,} matched, {total['delivered']:,} delivered, {total['missing']:,} missing")
        if found.missing:
            typer.echo()
            print_rows(Missing._fields, (each.as_json() for each in found.missing[:SHOWN]))
            typer.echo("--csv missing lists all; `explain TOPIC --partition --offset` tells about one", err=True)
