"""`kafka-webhooks check`."""

from typing import Annotated

import typer


def check(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Look at all that a worker needs.

    Settings, Kafka, topics, the group, database, tables, subscriptions: a line each, and what to do where one fails.

    Exit status 1 if anything is missing.

    Example: kafka-webhooks check --json
    """
    from contextlib import suppress

    from consumer.cli.console import print_json
    from consumer.cli.waiting import Waiting
    from consumer.config.environment import environment, load
    from consumer.config.settings import LogSettings
    from consumer.errors import SettingsError
    from consumer.ops.check import check_all
    from consumer.telemetry.logs import configure_logging

    values = environment()
    with suppress(SettingsError):  # a finding says so
        configure_logging(load(LogSettings, values).log_level)
    findings = []
    looks, waiting = check_all(values), Waiting("an answer; each part is given ten seconds")
    while True:
        with waiting:
            finding = next(looks, None)
        if finding is None:
            break
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'✓' if finding.ok else '✗'} {finding.part}: {finding.text}")
    if as_json:
        print_json([finding._asdict() for finding in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
