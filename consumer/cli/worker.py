"""`kafka-webhooks run` and `kafka-webhooks demo`."""

import os
from typing import Annotated

import structlog
import typer

from consumer.config import slips
from consumer.config.environment import environment, load_worker
from consumer.crypto.keys import NEW_SECRET, weakness
from consumer.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)


def run(
    *,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Workers, each a process and a member of the group; auto: one for each core that may be used.",
        ),
    ] = "1",
) -> None:
    """Consume, deliver, retry and commit until SIGTERM.

    \b
    Examples:
      KAFKA_TOPICS=orders,users kafka-webhooks run
      KAFKA_TOPICS=orders,users kafka-webhooks run --workers auto
    """
    from consumer.cli.app import told
    from consumer.worker.cores import workers_of
    from consumer.worker.group import run as run_workers

    try:
        number = workers_of(workers)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--workers") from None
    values = environment()
    settings = load_worker(values)
    configure_logging(settings.log.log_level)
    slips.warn(slips.of_settings(values))
    for why in filter(None, map(weakness, settings.delivery.secrets)):
        log.warning("a secret can be guessed", reason=f"WEBHOOK_SECRET {why}", change=NEW_SECRET)
    # OpenTelemetry reads the environment itself, and no .env file.
    os.environ.update({name: value for name, value in values.items() if name.startswith("OTEL_")})
    run_workers(settings, number, told)


def demo() -> None:
    """Show the whole path at work, from Kafka to receivers.

    It uses a Kafka inside this process, SQLite, and receivers, some of which fail.

    Example: kafka-webhooks demo
    """
    from consumer.demo.story import main

    main()
