"""Owns one run of tritonserver: its log, its end, and the removal of all that it leaves.

The guard is a process of its own between the launcher and tritonserver, because only a process
that survives the launcher can clean up after a `kill -9` of it. The launcher holds the guard's
standard input open: end of file means that the launcher is gone.

SIGTERM stops tritonserver gracefully, SIGQUIT at once. Exits with tritonserver's exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import psutil

from frontend.launcher import leftovers
from model_kit import heartbeat

LOG_BYTES = 8 * 1024 * 1024
LINE_BYTES = 64 * 1024

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT)


def main() -> int:
    """Run the tritonserver command given on the command line to its end.

    Returns:
        Its exit code; 128 + n where signal n ended it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument(leftovers.LOG_OPTION, required=True, help="takes tritonserver's output")
    parser.add_argument("--grace", type=float, required=True, help="seconds SIGTERM may take")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()

    os.umask(0o077)  # logs name jobs and errors, and are no other user's business
    log = logging.handlers.RotatingFileHandler(
        arguments.log, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8"
    )
    log.doRollover()
    logging.raiseExceptions = False  # a full disk costs lines, not a traceback for each
    # Blocked before any thread or child exists, so that waiting for them misses none.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # stubs whose tritonserver died become children here
    prefix = leftovers.prefix(os.getpid())
    server = subprocess.Popen(
        [
            *arguments.command,
            f"--id={prefix}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
        ],
        env={**os.environ, heartbeat.PREFIX_VARIABLE: leftovers.heartbeats(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_before_exec,
    )
    assert server.stdout is not None
    logger = threading.Thread(target=_copy, args=(server.stdout, log), daemon=True)
    logger.start()
    threading.Thread(target=_watch_launcher, daemon=True).start()
    try:
        _wait(server, arguments.grace)
    finally:
        server.kill()
        server.wait()
        _kill_descendants()
        leftovers.remove(os.getpid())
        _remove_loading_file()
        logger.join(timeout=1.0)  # lets the last lines through; all writers have ended
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _before_exec() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # If the guard is killed, the kernel kills tritonserver. The kernel watches the thread that
    # forked, which is the guard's main thread, so the signal cannot come early.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """Wait until `server` has ended, or the time to do so after a signal is over."""
    deadline: float | None = None
    received: signal.struct_siginfo | None
    while server.poll() is None:
        if deadline is None:
            received = signal.sigwaitinfo(_SIGNALS)
        else:
            left = max(0.0, deadline - time.monotonic())
            received = signal.sigtimedwait(_SIGNALS, left)
        if received is None or received.si_signo == signal.SIGQUIT:
            return
        if received.si_signo == signal.SIGTERM and deadline is None:
            server.terminate()
            deadline = time.monotonic() + grace_s


def _kill_descendants() -> None:
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=1.0)


def _remove_loading_file() -> None:
    """Remove what a load that was cut off has left; one that ends removes it itself."""
    if name := os.environ.get(leftovers.LOADING_FILE):
        with contextlib.suppress(OSError):  # mostly it is gone already
            Path(name).unlink()


def _copy(output: IO[bytes], log: logging.Handler) -> None:
    try:
        for line in iter(lambda: output.readline(LINE_BYTES), b""):
            text = line.decode(errors="replace").rstrip("\n")
            log.emit(logging.makeLogRecord({"msg": text}))
    except BaseException:
        # Nobody empties the pipe any more, and a tritonserver that logs would stand still.
        os.kill(os.getpid(), signal.SIGQUIT)
        raise


def _watch_launcher() -> None:
    try:
        os.read(sys.stdin.fileno(), 1)
    finally:
        # Whatever ended the wait, nobody would notice the launcher's end any more.
        os.kill(os.getpid(), signal.SIGQUIT)


if __name__ == "__main__":
    sys.exit(main())
