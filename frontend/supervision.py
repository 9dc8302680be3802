"""Owns tasks and threads that must not end unseen: the process ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from typing import TYPE_CHECKING, Any

import structlog

from model_kit import crash_only

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

log = structlog.get_logger()

# A round may fail by bad luck. So many in a row mean that nobody is supervised any more.
MAX_FAILED_ROUNDS = 5


class Rounds:
    """The rounds of a task that supervises: each may fail, but not too many in a row.

    Args:
        name: of the task, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._failed = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Log the exception of one round; raise it after MAX_FAILED_ROUNDS in a row."""
        try:
            yield
        except Exception:
            self._failed += 1
            log.exception("supervision_failed", of=self._name)
            if self._failed >= MAX_FAILED_ROUNDS:
                raise
        else:
            self._failed = 0


def supervised_task(name: str, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Start a task that runs until somebody cancels it; if it ends otherwise, so does the process.

    Args:
        name: of the task, for the log.
        work: runs for ever.
    """
    task: asyncio.Task[object] = asyncio.create_task(work, name=name)
    task.add_done_callback(_end_unless_cancelled)
    return task


def supervised_thread(
    name: str, work: Callable[[], object], asked: Callable[[], bool]
) -> threading.Thread:
    """Return a thread, not started; if its work ends unasked, so does the process.

    Args:
        name: of the thread, for the log.
        work: what the thread does.
        asked: whether it was to end.
    """
    target = crash_only.guarded(name, work, asked, _log_end)
    return threading.Thread(target=target, name=name, daemon=True)


def _end_unless_cancelled(task: asyncio.Task[object]) -> None:
    if task.cancelling():
        return
    if task.cancelled():
        reason = "something that it waited for was cancelled"
    elif (error := task.exception()) is None:
        reason = "it returned"
    else:
        reason = "".join(traceback.format_exception(error))
    crash_only.end_process(task.get_name(), reason, _log_end)


def _log_end(sentence: str) -> None:
    log.critical("supervision_ended", reason=sentence)
