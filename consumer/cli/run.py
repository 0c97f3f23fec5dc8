"""`kafka-webhooks run`."""

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
    Service().run(settings)
