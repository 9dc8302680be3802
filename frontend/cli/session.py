"""Owns a command's talk with the server: its client, its refusals, and the signals meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING, NamedTuple, Self

from frontend.cli.console import BAD_INPUT, FAILED, fail, stderr
from frontend.client import ApiError, Client
from frontend.signals import heard
from frontend.streams import say_at_once

KEY_VARIABLE = "ARTMANCER_API_KEY"

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType


# The contract's words, of which base64 and formats are not what a user of files has chosen.
_OF_BASE64 = re.compile(r"(?<=: )Invalid (base64 )?image data or unsupported format: ")

INSIST_S = 1.0
"""An interrupt that nobody has heard is raised again after so long."""


class Interrupted(SystemExit):
    """A signal has come; the code is 128 and the signal's number, as in a shell."""

    code: int


class Interrupts:
    """While entered, the first SIGINT, SIGTERM or SIGHUP raises Interrupted.

    A second one ends the process at once, except a SIGHUP.
    """

    def __init__(self) -> None:
        self.left_behind = ""
        """What the user should know if a second signal ends the process."""
        self._first: int | None = None
        self._holding = False
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Self:
        """Catch the signals, except those that the process ignores, as under nohup."""
        for number in heard():
            self._before[number] = signal.signal(number, self._catch)  # type: ignore[assignment]
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)  # type: ignore[assignment]
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Put back what was there before."""
        self.heard()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, Interrupted):
            stderr.print("artmancer: interrupted")

    @contextlib.contextmanager
    def held(self, waiting_for: str) -> Iterator[None]:
        """Put the first signal off until the end of the block, so that its outcome is known.

        Args:
            waiting_for: what the user is told that the block waits for.
        """
        self._waiting_for = waiting_for
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._first is not None:
            raise Interrupted(128 + self._first)

    def heard(self) -> None:
        """Insist no more: whoever caught Interrupted acts on it."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _insist(self, _number: int, _frame: FrameType | None) -> None:
        """Raise Interrupted again: Python drops what is raised within a finalizer."""
        if self._first is not None:
            raise Interrupted(128 + self._first)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        if self._first is not None:
            if number == signal.SIGHUP:  # nobody insists: a terminal that goes sends several
                return
            say_at_once(f"artmancer: interrupted again{self.left_behind}\n")
            os._exit(128 + number)
        self._first = number
        if not self._holding:
            signal.setitimer(signal.ITIMER_REAL, INSIST_S, INSIST_S)
            raise Interrupted(128 + number)
        say_at_once(
            f"artmancer: waiting for {self._waiting_for}; interrupt again to leave at once\n"
        )


class Session(NamedTuple):
    """A command's client and its signals."""

    client: Client
    interrupts: Interrupts
    options: Mapping[str, str]
    """Field of a request -> the option that a user knows it by."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Print what the server doubts."""
        for warning in warnings:
            stderr.print(f"artmancer: {by_options(warning, self.options)}")


@contextlib.contextmanager
def session(url: str, options: Mapping[str, str] | None = None) -> Iterator[Session]:
    """Open a client, and exit with one line where the server refuses or fails.

    It sends the API key in ARTMANCER_API_KEY, which no option does: others see a command's options.

    Args:
        url: the server's address.
        options: field of a request -> the option that a user knows it by.
    """
    options = {"url": "--url, or ARTMANCER_URL,", **(options or {})}
    with Interrupts() as interrupts:
        try:
            with Client(url, os.environ.get(KEY_VARIABLE, "").strip()) as client:
                yield Session(client, interrupts, options)
        except ApiError as error:
            # A client that has too much in work has made no mistake.
            blamed = error.status not in (None, 429) and 400 <= error.status < 500
            text = by_options(str(error), options)
            if error.status == 401:
                text = f"{text} (the commands take it from {KEY_VARIABLE})"
            fail(text, BAD_INPUT if blamed else FAILED)


def by_options(text: str, options: Mapping[str, str]) -> str:
    """Return the server's words on a field as words on the option that has set it."""
    text = _OF_BASE64.sub("", text)
    for field, option in options.items():
        # One of several words is no word of a sentence.
        start, end = (r"(\b)", r"\b") if "_" in field else (r"(^|; |\d: )", "(?=[: ])")
        text = re.sub(rf"{start}{field}(\.\d+)*{end}", rf"\1{option}", text)
    return text
