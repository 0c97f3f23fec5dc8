"""Logs of this program and of the libraries that it uses, one event per line."""

import logging
import os
import sys

import structlog


def configure_logging(level: str) -> None:
    """Log one event per line to stderr, readable on a terminal, as JSON elsewhere. Includes standard-library loggers.

    A terminal gets colours, unless NO_COLOR is set and not empty (https://no-color.org).
    """
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
        if terminal
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    threshold = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_without_traces_of_lost_sessions)
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _without_traces_of_lost_sessions(record: logging.LogRecord) -> bool:
    """Shorten SQLAlchemy's report of a session that broke while it was returned to the pool: that is not a bug."""
    if record.name.startswith("sqlalchemy.pool") and record.exc_info:
        reason = str(record.exc_info[1]).partition("\n")[0]
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {reason}", (), None
    return True
