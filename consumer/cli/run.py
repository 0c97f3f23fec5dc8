"""`kafka-webhooks run`."""

import os

from consumer.config import slips
from consumer.config.environment import environment, load_worker
from consumer.telemetry.logs import configure_logging
from consumer.worker.service import Service


def run() -> None:
    """Run one worker until SIGTERM."""
    values = environment()
    settings = load_worker(values)
    configure_logging(settings.log.log_level)
    slips.warn(slips.of_settings(values))
    # OpenTelemetry reads the environment itself, and no .env file.
    os.environ.update({name: value for name, value in values.items() if name.startswith("OTEL_")})
    Service().run(settings)
