"""Owns what the commands share: how they print, read, write and exit."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import signal
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import pydantic
import typer
from PIL import Image
from pydantic_settings import SettingsError
from rich.console import Console

from frontend.settings import Settings, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.launcher.errors import LaunchError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

Url = Annotated[
    str, typer.Option(envvar="ARTMANCER_URL", help="Address of a running `artmancer serve`.")
]
DEFAULT_URL = "http://127.0.0.1:8080"

# Those of C0 but tab and line feed, DEL, and those of C1. A terminal obeys them, and rich passes
# ESC on.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return a text of the server's as a terminal may get it: without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class PlainConsole(Console):
    """Prints what it is given and nothing that a terminal obeys."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See Console."""
        super().print(
            *(printable(each) if isinstance(each, str) else each for each in objects), **options
        )


console = PlainConsole(soft_wrap=True, highlight=False, markup=False)
stderr = PlainConsole(stderr=True, soft_wrap=True, highlight=False, markup=False)


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
            stderr.print(f"artmancer: {variable}: {problem['msg']}")
        raise typer.Exit(BAD_INPUT) from error


def stop_on_signals() -> None:
    """Make the first SIGINT, SIGTERM or SIGHUP a KeyboardInterrupt, and ignore later ones.

    The stop that follows bounds its own time, and must not be left half done.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is
        numbers.append(signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def fail(problem: str, code: int) -> NoReturn:
    """Say what is wrong in one line, and exit."""
    stderr.print(f"artmancer: {problem}")
    raise typer.Exit(code)


def fail_to_launch(error: LaunchError) -> NoReturn:
    """Say why nothing runs, and exit."""
    if error.log_tail:
        stderr.print(error.log_tail)
    for problem in error.problems:
        stderr.print(f"artmancer: {problem}")
    raise typer.Exit(FAILED)


def read(path: Path) -> bytes:
    """Return a file's bytes, or say why not and exit."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", BAD_INPUT)


def as_base64(data: bytes) -> str:
    """Return bytes as the text that JSON carries."""
    return base64.b64encode(data).decode()


def opened(data: bytes) -> Image.Image:
    """Return an encoded picture, opened."""
    return Image.open(io.BytesIO(data))


def numbers(text: str, count: int, option: str) -> tuple[float, ...]:
    """Return an option's numbers, or say what is wrong with them and exit."""
    try:
        read = tuple(float(part) for part in text.split(","))
    except ValueError:
        read = ()
    if len(read) != count or not all(map(math.isfinite, read)):
        fail(f"{option} takes {count} numbers with commas between them, not {text}", BAD_INPUT)
    return read
