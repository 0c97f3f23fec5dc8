"""`kafka-webhooks check`."""

from typing import Annotated

import typer


def check(*, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check everything that a worker needs.

    Checks settings, Kafka, topics, the group, the schema registry, database, tables, subscriptions, receivers and
    secrets. Each prints a line; a line that fails (✗) says what to do. A line with ! is a warning: a worker can start,
    but receivers fail, or records became dead letters in the last hour.

    Exit status 1 if any check fails; a warning is not a failure.

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
