"""Owns the heartbeat of a model's process: who gives it, what it says, and when silence is an end.

A process that is stopped, or spins in native code while it holds Python's lock, runs no Python.
None of its own deadlines fires then. So a thread of it writes a file each second, and whoever
has started Triton watches the file's time. The file says whether the model has work, because
Triton sometimes goes on waiting for work that has ended.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from model_kit import crash_only

PREFIX_VARIABLE = "ARTMANCER_HEARTBEAT_PREFIX"
"""Environment variable with the path of the files, up to the process id; without one, none beats.

Each run of Triton needs its own, so that no file of an earlier process is taken for a later one's.
"""
INTERVAL_S = 1.0
TIMEOUT_S = 60.0
"""By default. Native code that keeps Python's lock for so long, and comes back, is not known."""
MIN_TIMEOUT_S = 5.0
"""In less time a busy machine may keep a healthy process from beating."""
_BUSY, _IDLE = b"busy", b"idle"  # of one length, as one is written over the other


def start(
    log_error: Callable[[str], object], is_busy: Callable[[], bool] = lambda: False
) -> Callable[[], None]:
    """Show from now on, from a thread, that this process lives and whether it has work.

    Call it at the end of the model's load, because nobody watches before. The thread goes on
    while other threads compute: long calls of native code let it run, unless they hold Python's
    lock.

    Args:
        log_error: takes the last line of the process, which ends if the thread does.
        is_busy: returns whether a client waits for this model. A model that only other models
            call needs none: they wait for it.

    Returns:
        What beats once more, by any thread. A model with work calls it last when it is unloaded,
        so that nobody takes a process that has ended for one that has lost work.

    Raises:
        OSError: the file cannot be written.
    """
    prefix = os.environ.get(PREFIX_VARIABLE)
    if not prefix:
        return lambda: None
    file = _file(prefix, os.getpid())

    def say() -> None:
        # Never emptied, which gives the page away: on a full /dev/shm none may come back.
        opened = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.pwrite(opened, _BUSY if is_busy() else _IDLE, 0)
        finally:
            os.close(opened)

    def beat() -> None:
        while True:
            time.sleep(INTERVAL_S)
            say()

    say()

    target = crash_only.guarded("heartbeat", beat, lambda: False, log_error)
    threading.Thread(target=target, name="heartbeat", daemon=True).start()
    return say


class Listener:
    """Listens for the heartbeat of one process.

    Silence is counted in looks, because all clocks go on while a machine, or the listener itself,
    stands still. No look counts for more than `INTERVAL_S`, so look at least that often.

    Args:
        prefix: what `PREFIX_VARIABLE` says to the process.
        process_id: the process, by the number that it has for itself.
        timeout_s: seconds of silence that count as the end of the process.
    """

    def __init__(self, prefix: str, process_id: int, timeout_s: float) -> None:
        self._file = _file(prefix, process_id)
        self._timeout_s = timeout_s
        self._heard: int | None = None
        self._looked_at = time.monotonic()
        self._silent_s = 0.0

    def is_silent(self) -> bool:
        """Look once; return whether the process has been silent for too long.

        A process that has never beaten is not silent: its model may know nothing of this.
        """
        before, self._looked_at = self._looked_at, time.monotonic()
        heard: int | None
        try:
            heard = self._file.stat().st_mtime_ns
        except FileNotFoundError:  # not there yet, or removed: the next beat brings it back
            heard = self._heard
        if heard is None or heard != self._heard:
            self._heard, self._silent_s = heard, 0.0
        else:
            self._silent_s += min(self._looked_at - before, INTERVAL_S)
        return self._silent_s > self._timeout_s

    def is_idle(self) -> bool:
        """Return whether the process has said, as its last word, that no client waits for it."""
        try:
            return self._file.read_bytes() == _IDLE
        except FileNotFoundError:
            return False


def process_ids(prefix: str) -> set[int]:
    """Return the processes that have beaten in a run of Triton, whether they live or not."""
    return {int(file.name.removeprefix(Path(prefix).name)) for file in _files(prefix)}


def remove_files(prefix: str) -> None:
    """Remove the files of a run of Triton that has ended."""
    for file in _files(prefix):
        file.unlink(missing_ok=True)


def _files(prefix: str) -> list[Path]:
    path = Path(prefix)
    return list(path.parent.glob(f"{path.name}*"))


def _file(prefix: str, process_id: int) -> Path:
    return Path(f"{prefix}{process_id}")
