"""`kafka-webhooks run` and `kafka-webhooks demo`."""

import os

from consumer.config import slips
from consumer.config.environment import environment, load_worker
from consumer.telemetry.logs import configure_logging


def run() -> None:
    """Consume, deliver, retry and commit until SIGTERM.

    Example: KAFKA_TOPICS=orders,users kafka-webhooks run
    """
    from consumer.worker.service import Service

    values = environment()
    settings = load_worker(values)
    configure_logging(settings.log.log_level)
    slips.warn(slips.of_settings(values))
    # OpenTelemetry reads the environment itself, and no .env file.
    os.environ.update({name: value for name, value in values.items() if name.startswith("OTEL_")})
    Service().run(settings)


def demo() -> None:
    """Show the whole path at work, from Kafka to receivers.

    It uses a Kafka inside this process, SQLite, and receivers, some of which fail.

    Example: kafka-webhooks demo
    """
    from consumer.demo.story import main

    main()
