"""Owns the entry of the command line `artmancer`, and what a signal does before a command runs.

It imports little, because the imports of the commands take longer than a quick Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Run the command that the process' arguments name, and exit."""
    leave_on_signals()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # A server's words and the names of files may hold what the terminal's encoding lacks.
        stream.reconfigure(errors="backslashreplace")
    from frontend.cli.app import app

    try:
        try:
            app()
        finally:
            if sys.stdout is not None:  # None where a shell has closed it
                sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # at its end Python would try to write the rest once more
        unread = error.errno == errno.EPIPE  # as behind `| head`
        sys.exit(1 if unread else f"artmancer: {error.filename or 'stdout'}: {error.strerror}")


def leave_on_signals() -> None:
    """Make a signal end the process with a line, as long as it only imports."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, or in the background
            signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    # Nothing has begun that would have to end, and an exception would be shown as a traceback.
    os.write(2, b"artmancer: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
