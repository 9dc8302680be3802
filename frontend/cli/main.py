"""Owns the entry of the command line `artmancer`, and what a signal does before a command runs.

It imports little, because the imports of the commands take longer than a quick Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import NoReturn

from frontend.signals import heard
from frontend.streams import lose_output, say_at_once


def main() -> None:
    """Run the command that the process' arguments name, and exit."""
    begin()
    from frontend.cli.app import app

    try:
        app()
    except SystemExit as ended:
        if not ended.code:
            _fail_if_the_result_is_lost()
        raise


def begin() -> None:
    """Let a signal end the process with a line while it only imports, and lost output nothing."""
    for number in heard():
        signal.signal(number, _leave)
    lose_output()


def _leave(number: int, _frame: object) -> NoReturn:
    # Nothing has begun that would have to end, and an exception would be shown as a traceback.
    say_at_once("artmancer: interrupted\n")
    os._exit(128 + number)


def _fail_if_the_result_is_lost() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        if stream.needed and (error := stream.error) is not None:
            unread = error.errno == errno.EPIPE  # as behind `| head`
            sys.exit(1 if unread else f"artmancer: {name}: {error.strerror}")


if __name__ == "__main__":
    main()
