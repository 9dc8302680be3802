"""Owns a frontend that kills itself at a named point, as a crash of the machine's luck would.

A point is the name of a store's transaction and a moment: `before` it begins, `within` it, before
its commit, or `after` its commit, before anybody hears of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from frontend.dispatch import dispatcher
from frontend.http import app
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.serving import running
from frontend.settings import Settings
from frontend.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPENDS = 3
"""The job has run for so many events when an append kills."""


def main(environment: dict[str, str], log: Path, point: str, lease_s: float) -> None:
    """Serve until the point is reached, or until a signal stops this process.

    Args:
        environment: is added to this process's.
        log: gets what this process prints.
        point: "" for none.
        lease_s: seconds until a job counts as lost.
    """
    with log.open("ab") as file:
        for printed in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), printed.fileno())
    os.environ.update(environment)
    dispatcher.LEASE_S = app.LEASE_S = lease_s  # type: ignore[attr-defined]
    if point:
        name, _, moment = point.partition(".")
        _arm(name, moment)
    stop_on_signals()
    with contextlib.suppress(KeyboardInterrupt), running(Settings()) as serving:
        serving.wait()


def _arm(name: str, moment: str) -> None:
    left = APPENDS if name == "append" else 1

    def reached(steps: Any, outcome: object = True) -> bool:
        nonlocal left
        if steps.__name__ != name or outcome is None:
            return False
        left -= 1
        return left == 0

    write: Callable[..., Any] = SqlStore._write
    drive: Callable[..., Any] = SqliteDriver._drive
    transact: Callable[..., Any] = SqliteDriver._transact
    drive_postgres: Callable[..., Any] = PostgresDriver._drive

    async def armed_write(self: SqlStore, steps: Any, *topics: Any, **options: Any) -> Any:
        if moment == "before" and reached(steps):
            die()
        outcome = await write(self, steps, *topics, **options)
        # Of PostgreSQL alone: it has no thread through which the next transaction goes.
        postgres = isinstance(self.driver, PostgresDriver)
        if moment == "after" and postgres and reached(steps, outcome):
            die()
        return outcome

    def armed_transact(self: SqliteDriver, connection: Any, steps: Any, *rest: Any) -> Any:
        outcome = transact(self, connection, steps, *rest)
        if moment == "after" and reached(steps, outcome):
            die()
        return outcome

    def armed_drive(self: SqliteDriver, connection: Any, steps: Any) -> Any:
        outcome = drive(self, connection, steps)
        if moment == "within" and reached(steps, outcome):
            die()
        return outcome

    async def armed_drive_postgres(self: PostgresDriver, connection: Any, steps: Any) -> Any:
        outcome = await drive_postgres(self, connection, steps)
        if moment == "within" and reached(steps, outcome):
            die()
        return outcome

    SqlStore._write = armed_write  # type: ignore[method-assign]
    PostgresDriver._drive = armed_drive_postgres  # type: ignore[method-assign]
    SqliteDriver._drive = armed_drive  # type: ignore[method-assign]
    SqliteDriver._transact = armed_transact  # type: ignore[method-assign, assignment]


def die() -> NoReturn:
    """End this process at once: nothing is finished, nothing is written."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")
