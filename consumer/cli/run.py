"""`kafka-webhooks run`."""

from consumer.environment import load_worker
from consumer.service import Service
from consumer.telemetry import configure_logging


def run() -> None:
    """Run one worker until SIGTERM."""
    settings = load_worker()
    configure_logging(settings.log.log_level)
    Service().run(settings)
