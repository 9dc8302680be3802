"""Owns what the commands share: how they print, read, write and exit."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from PIL import Image
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

Url = Annotated[
    str, typer.Option(envvar="ARTMANCER_URL", help="Address of a running `artmancer serve`.")
]
DEFAULT_URL = "http://127.0.0.1:8080"

# More than any server takes; a device may have no end.
MAX_FILE_BYTES = 2**30

# Those of C0 but tab and line feed, DEL, and those of C1. A terminal obeys them, and rich passes
# ESC on.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


_ADDRESS = re.compile(r"(https?:)/+(.+)", re.IGNORECASE)


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


def fail(problem: str, code: int) -> NoReturn:
    """Say what is wrong in one line, and exit."""
    stderr.print(f"artmancer: {' '.join(problem.splitlines())}")
    raise typer.Exit(code)


def read(path: Path) -> bytes:
    """Return a file's bytes, or say why not and exit."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if address := _ADDRESS.match(str(path)):
            # A path has lost one of its two slashes.
            given = f"{address[1]}//{address[2]}"
            fail(f"cannot read {given}: it is an address, and only files are read", BAD_INPUT)
        fail(f"cannot read {path}: {error.strerror}", BAD_INPUT)
    if len(data) > MAX_FILE_BYTES:
        fail(f"cannot read {path}: more than {MAX_FILE_BYTES} bytes", BAD_INPUT)
    if not data:
        fail(f"cannot read {path}: it is empty", BAD_INPUT)
    return data


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
