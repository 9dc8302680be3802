"""Owns the log of refused and failed requests: bounded in length and in lines a second."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import structlog

from frontend.domain.owners import address_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from frontend.domain.owners import Owner

log = structlog.get_logger()

# Lines of each level in a window; a flood of refusals must not hide the rest of the log.
MAX_LINES = 10
WINDOW_S = 1.0
MAX_DETAIL_CHARS = 300
MAX_PATH_CHARS = 100
# Longer than an image_id: base64, which may be a picture.
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{65,}")


class RefusalLog:
    """Logs refusals at info and failures at error, each at most MAX_LINES in a window.

    At a window's end one line counts those that were left out.

    Args:
        window_s: seconds of a window, which begins with the first line.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._refused = Window(window_s, lambda left_out: log.info(_LEFT_OUT, count=left_out))
        self._failed = Window(window_s, lambda left_out: log.error(_LEFT_OUT, count=left_out))

    def note(self, request: Request, status: int, detail: str, *, failed: bool) -> None:
        """Log an answer with an error status.

        Args:
            request: the one that is answered; its body is not logged.
            status: HTTP status code of the answer.
            detail: the answer's sentence.
            failed: whether the server, and not the client, is at fault.
        """
        window = self._failed if failed else self._refused
        if not window.has_room():
            return
        route = getattr(request.scope.get("route"), "path", None)
        write = log.error if failed else log.info
        write(
            "request_failed" if failed else "request_refused",
            method=request.method,
            route=route or _shown(request.scope["path"], MAX_PATH_CHARS),
            owner=_owner_name(request),
            status=status,
            detail=_shown(detail, MAX_DETAIL_CHARS),
        )

    def crashed(self, method: str, path: str) -> None:
        """Log the exception that is being handled, with its traceback, as a failure."""
        if self._failed.has_room():
            log.exception("request_crashed", method=method, path=_shown(path, MAX_PATH_CHARS))


_LEFT_OUT = "requests_left_out"


def _owner_name(request: Request) -> str:
    # What is refused by its names has no owner yet.
    owner: Owner | None = getattr(request.state, "owner", None)
    return owner.name if owner else address_name(request.client.host if request.client else "")


class Window:
    """Lets MAX_LINES pass in a window, and reports at its end how many did not.

    Args:
        seconds: of a window, which begins with the first line.
        report: takes their number, unless it is 0.
    """

    def __init__(self, seconds: float, report: Callable[[int], None]) -> None:
        self._seconds = seconds
        self._report = report
        self._lines = 0

    def has_room(self) -> bool:
        """Count a line; return whether it may be written. Call it in the event loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(self._seconds, self._end)
        self._lines += 1
        return self._lines <= MAX_LINES

    def _end(self) -> None:
        if self._lines > MAX_LINES:
            self._report(self._lines - MAX_LINES)
        self._lines = 0


def _shown(text: str, most: int) -> str:
    text = _BASE64.sub("…", text)
    return text if len(text) <= most else f"{text[:most]}…"
