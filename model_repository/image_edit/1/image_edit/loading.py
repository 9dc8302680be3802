"""Owns reporting the stages of the model's load, in Triton's log and in a file.

Triton opens no port until all models are loaded, so nobody could ask for them.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# The frontend reads the same variable. It ignores a file that is older than a few intervals: a
# killed load has left it.
FILE_VARIABLE = "ARTMANCER_LOADING_FILE"
INTERVAL_S = 2.0


@contextlib.contextmanager
def loading(log_info: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each stage of the load as it begins.

    The environment names the file. It holds the current stage as one line of UTF-8, is written
    again every `INTERVAL_S`, and is removed when the load ends. If it cannot be written, the log
    says so once.

    Args:
        log_info: takes a line for Triton's log.
    """
    started = time.perf_counter()
    name = os.environ.get(FILE_VARIABLE)
    file = _LoadingFile(Path(name), log_info) if name else None

    def on_stage(stage: str) -> None:
        log_info(f"image_edit: {time.perf_counter() - started:.1f} s, {stage}")
        if file is not None:
            file.write(stage)

    try:
        yield on_stage
    finally:
        if file is not None:
            file.close()


class _LoadingFile:
    """The file, and the thread that writes it again and again."""

    def __init__(self, path: Path, log_info: Callable[[str], None]) -> None:
        self._path = path
        # Several Tritons may share the file, in containers that number their processes alike.
        self._unfinished = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
        self._log_info = log_info
        self._stage = ""
        self._failed = False
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="loading", daemon=True)
        self._thread.start()

    def write(self, stage: str) -> None:
        self._stage = stage
        self._write()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _refresh(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._write()

    def _write(self) -> None:
        with self._writing:
            if not self._stage or self._ended.is_set():
                return
            try:
                # One step, so that no reader sees half a line.
                self._unfinished.write_text(f"{self._stage}\n", encoding="utf-8")
                self._unfinished.replace(self._path)
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    self._log_info(f"image_edit: cannot write {self._path}: {error.strerror}")
                with contextlib.suppress(OSError):
                    self._unfinished.unlink(missing_ok=True)
