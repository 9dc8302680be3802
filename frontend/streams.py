"""Owns writing to streams that may take nothing: what is lost is remembered, and ends nothing.

It imports little, because the command line loads it before anything else.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lossy(io.TextIOBase):
    """Writes to a file what it takes.

    Args:
        file: may be full, closed, or have nobody at its other end.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.error: OSError | None = None
        """Why it lost something first; None if it lost nothing."""
        self.needed = True
        """Whether a command that has lost something here has failed."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The file's."""
        return self._file.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What the file does with characters that its encoding lacks."""
        return self._file.errors

    def write(self, text: str) -> int:
        """Write a text, or lose it, and return its length."""
        with self._losing():
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what the file has put off, or lose it."""
        with self._losing():
            self._file.flush()

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return self._file.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
        except ValueError:  # the file is closed
            pass


def lose_output() -> None:
    """Let what nobody takes of stdout and stderr end nothing."""
    sys.stdout, sys.stderr = (Lossy(_escaping(stream)) for stream in (sys.stdout, sys.stderr))


def forgive_lost_output() -> None:
    """Call this where a command's text only goes along with what it does: to lose it is no failure.

    Without a call the text is the result.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Lossy):  # not in a test that has its own
            stream.needed = False


def say_at_once(text: str) -> None:
    """Write to stderr as a signal's handler may, in the middle of another write; or lose it."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _escaping(stream: TextIO | None) -> TextIO:
    if stream is None:  # a shell has closed it
        stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    # A server's words and the names of files may hold what the terminal's encoding lacks.
    stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    return stream
