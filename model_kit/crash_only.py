"""Owns the end of a process whose supervising thread or task ended unasked.

A process that has lost such a thread looks healthy and is not. So it ends, with a line in its log,
and whoever is above starts a new one.
"""

import os
import traceback
from collections.abc import Callable
from typing import ParamSpec

EXIT_CODE = 1
P = ParamSpec("P")


def guarded(
    name: str,
    run: Callable[[], object],
    asked: Callable[[], bool],
    log_error: Callable[[str], object],
) -> Callable[[], None]:
    """Return a thread's target that ends the process unless `run` ends as it was asked to.

    Args:
        name: of the thread, for the log.
        run: the thread's work.
        asked: whether `run` was to end.
        log_error: takes the last line of the process.
    """

    def target() -> None:
        try:
            run()
            reason = "it returned"
        except BaseException:  # whatever it is, the thread is gone
            reason = traceback.format_exc()
        if not asked():
            end_process(name, reason, log_error)

    return target


def unfailing(
    name: str, run: Callable[P, None], log_error: Callable[[str], object]
) -> Callable[P, None]:
    """Return a task for a pool, which ends the process if `run` raises.

    A pool keeps an exception to itself, and whoever waits for what the task owes waits for ever.

    Args:
        name: of the task, for the log.
        run: the task; it deals with every error that it foresees.
        log_error: takes the last line of the process.
    """

    def task(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except BaseException:  # whatever it is, somebody is owed an answer
            end_process(name, traceback.format_exc(), log_error)

    return task


def end_process(name: str, reason: str, log_error: Callable[[str], object]) -> None:
    """End this process at once, after a line in its log.

    Args:
        name: of the thread or task that ended.
        reason: why it did.
        log_error: takes the line.
    """
    try:
        log_error(f"{name} ended unasked, so this process ends: {reason}")
    finally:
        os._exit(EXIT_CODE)
