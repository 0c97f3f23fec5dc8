"""`kafka-webhooks run`."""

from consumer import slips
from consumer.environment import environment, load_worker
from consumer.service import Service
from consumer.telemetry import configure_logging


def run() -> None:
    """Run one worker until SIGTERM."""
    values = environment()
    settings = load_worker(values)
    configure_logging(settings.log.log_level)
    slips.warn(slips.of_settings(values))
    Service().run(settings)
