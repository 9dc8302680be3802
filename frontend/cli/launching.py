"""Owns what a command that starts a server reads and says; the clients' commands do without."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pydantic
import typer

from frontend.cli.console import BAD_INPUT, FAILED, stderr
from frontend.errors import own_words
from frontend.settings import Settings, unknown

if TYPE_CHECKING:
    from frontend.launcher.errors import LaunchError


def read_settings() -> Settings:
    """Return the settings, or say which variable is wrong and exit.

    A variable that is no setting gets a line and does no harm.
    """
    for name, meant in unknown(os.environ).items():
        hint = f"; {meant} is one" if meant else ""
        stderr.print(f"artmancer: warning: {name} is no setting and has no effect{hint}")
    try:
        return Settings()
    except pydantic.ValidationError as error:
        for problem in error.errors():
            variable = f"ARTMANCER_{problem['loc'][0]}".upper()
            stderr.print(f"artmancer: {variable}: {own_words(problem['msg'])}")
        raise typer.Exit(BAD_INPUT) from error


def fail_to_launch(error: LaunchError) -> NoReturn:
    """Say why nothing runs, and exit."""
    if error.log_tail:
        stderr.print(error.log_tail)
    for problem in error.problems:
        stderr.print(f"artmancer: {problem}")
    raise typer.Exit(FAILED)
