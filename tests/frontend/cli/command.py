"""Owns running `artmancer` as a process."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from frontend.cli.main import main
from tests.fakes.forks import FORKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    Lost = Literal["full", "unread"] | None

ARTMANCER = Path(sys.prefix) / "bin" / "artmancer"


def run(
    *words: object,
    url: str = "http://127.0.0.1:9",
    full_disk: bool = False,
    lost: Lost = None,
    lost_stream: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        words: after `artmancer`.
        url: the server's address.
        full_disk: it cannot write a byte into a file.
        lost: what becomes of one of its streams: it is on a full disk, or its reader has gone.
        lost_stream: that stream, 1 or 2.
    """
    command = [str(ARTMANCER), *map(str, words)]
    pipes = [FORKS.Pipe(duplex=False) for _ in range(2)]
    writers = [pipe[1] for pipe in pipes]
    full = lost_stream if lost == "full" else None
    if lost == "unread":
        pipes[lost_stream - 1][0].close()
    process = FORKS.Process(
        target=_become,
        args=(command, os.environ | {"ARTMANCER_URL": url}, full_disk, full, writers),
    )
    process.start()
    for _, writer in pipes:
        writer.close()
    with ThreadPoolExecutor() as readers:
        output, errors = readers.map(_read, [reader for reader, _ in pipes])
    process.join(60)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, output, errors)


def _become(
    command: list[str],
    environment: dict[str, str],
    full_disk: bool,
    full: int | None,
    writers: list[Connection],
) -> None:
    for number, writer in enumerate(writers, 1):
        os.dup2(writer.fileno(), number)
        writer.close()
    if full is not None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), full)
    # Those that the process was forked with take 1 and 2 for files.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    if full_disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.argv = command
    main()


def _read(reader: Connection) -> str:
    if reader.closed:
        return ""
    with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as file:
        reader.close()
        return file.read()


@contextlib.contextmanager
def started(
    *words: object, url: str = "http://127.0.0.1:9", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a command; it is killed at the end of the block."""
    process = subprocess.Popen(
        # A shell that runs the tests in the background has its children ignore it. Not by
        # preexec_fn, because gRPC's threads do not survive its fork.
        ["env", "--default-signal=INT", ARTMANCER, *map(str, words)],
        env=os.environ | {"ARTMANCER_URL": url, "PYTHONUNBUFFERED": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def in_terminal(*words: object, url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a command as the first of a terminal; it is killed at the end of the block.

    Yields:
        The process, and the terminal's own side: it reads what is shown, and to close it closes the
        terminal.
    """
    own, terminal = pty.openpty()
    process = subprocess.Popen(
        [
            *("setsid", "--ctty", "env", "--default-signal=INT,HUP"),
            ARTMANCER,
            *map(str, words),
        ],
        env=os.environ | {"ARTMANCER_URL": url, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    with process:
        try:
            yield process, own
        finally:
            process.kill()
