"""Owns the form of the frontend's log: one JSON object a line on stderr, of bounded length."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

MAX_VALUE_CHARS = 4000


def configure(level: str) -> None:
    """Set up structlog for the process.

    Values bound by `structlog.contextvars` appear in every entry. A job's id is `task_id` there,
    because users report it by the API's name.

    Args:
        level: debug, info, warning or error.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _shorten,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _shorten(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Keep only the end of a long text, because a traceback says there what happened."""
    for key, value in entry.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARS:
            entry[key] = f"…{value[-MAX_VALUE_CHARS:]}"
    return entry
