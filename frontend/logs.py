"""Owns the form of the frontend's log: one JSON object a line on stderr, of bounded length.

A log that cannot be written, as on a full disk, loses lines and ends nothing.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

import structlog

from frontend.streams import Lossy

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

MAX_VALUE_CHARS = 4000
# Lines of other libraries in a window; a flood of them must not hide the rest of the log.
MAX_FOREIGN_LINES = 10
WINDOW_S = 1.0
# What tasks find each second, or each request does, as long as it is so.
SELDOM = {"store_away", "picture_not_kept", "decoding_failed"}
SELDOM_S = 10.0


def configure(level: str) -> None:
    """Set up structlog for the process.

    Values bound by `structlog.contextvars` appear in every entry. A job's id is `task_id` there,
    because users report it by the API's name.

    Args:
        level: debug, info, warning or error.
    """
    structlog.configure(
        processors=[
            _Seldom(),
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
        logger_factory=structlog.WriteLoggerFactory(Lossy(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _Foreign)]
    root.addHandler(_Foreign(logging.WARNING))


def _shorten(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Keep only the end of a long text, because a traceback says there what happened."""
    for key, value in entry.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARS:
            entry[key] = f"…{value[-MAX_VALUE_CHARS:]}"
    return entry


class _Seldom:
    """Drops what was told in the last SELDOM_S."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, _logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
        event, now = str(entry["event"]), time.monotonic()
        if event in SELDOM:
            if now - self._told.get(event, -SELDOM_S) < SELDOM_S:
                raise structlog.DropEvent
            self._told[event] = now
        return entry


class _Foreign(logging.Handler):
    """Writes what libraries log in this log's form, at most MAX_FOREIGN_LINES in a window."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._window_ends = 0.0
        self._lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        if (now := time.monotonic()) >= self._window_ends:
            self._window_ends, self._lines = now + WINDOW_S, 0
        self._lines += 1
        if self._lines > MAX_FOREIGN_LINES:
            return
        log = structlog.get_logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library", logger=record.name, text=record.getMessage(), exc_info=record.exc_info)
