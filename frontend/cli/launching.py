"""Owns what a command that starts a server reads and says; the clients' commands do without."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pydantic
import typer
from pydantic_settings import SettingsError

from frontend.cli.console import BAD_INPUT, FAILED, stderr
from frontend.errors import own_words
from frontend.settings import Settings, unknown

if TYPE_CHECKING:
    from frontend.launcher.errors import LaunchError

INSIST_S = 0.5
"""An interrupt that Python has dropped is raised again after so long."""


def read_settings() -> Settings:
    """Return the settings, or say which variable is wrong and exit.

    A variable that is no setting gets a line and does no harm.
    """
    for name, meant in unknown(os.environ).items():
        hint = f"; {meant} is one" if meant else ""
        stderr.print(f"artmancer: warning: {name} is no setting and has no effect{hint}")
    try:
        return Settings()
    except SettingsError as error:  # not even JSON
        stderr.print(f"artmancer: {error}: {error.__cause__}")
        raise typer.Exit(BAD_INPUT) from error
    except pydantic.ValidationError as error:
        for problem in error.errors():
            variable = f"ARTMANCER_{problem['loc'][0]}".upper()
            stderr.print(f"artmancer: {variable}: {own_words(problem['msg'])}")
        raise typer.Exit(BAD_INPUT) from error


def stop_on_signals() -> None:
    """Make the first SIGINT, SIGTERM or SIGHUP a KeyboardInterrupt, and ignore later ones.

    The stop that follows bounds its own time, and must not be left half done. Python drops what is
    raised within a finalizer, and says so to `sys.unraisablehook`; then it is raised again.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is
        numbers.append(signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    def again(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, INSIST_S)  # later, as this hook's are dropped too
        else:
            tell(what)

    tell, sys.unraisablehook = sys.unraisablehook, dropped
    signal.signal(signal.SIGALRM, again)
    for number in numbers:
        signal.signal(number, interrupt)


def fail_to_launch(error: LaunchError) -> NoReturn:
    """Say why nothing runs, and exit."""
    if error.log_tail:
        stderr.print(error.log_tail)
    for problem in error.problems:
        stderr.print(f"artmancer: {problem}")
    raise typer.Exit(FAILED)
