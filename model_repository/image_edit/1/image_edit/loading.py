"""Tells how far the model's load is, while Triton opens no port: in its log, and in a file."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# The frontend reads the same variable, and takes a file that is older than a few of these
# intervals for what a killed load has left.
FILE_VARIABLE = "ARTMANCER_LOADING_FILE"
INTERVAL_S = 2.0


@contextlib.contextmanager
def loading(log_info: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Yields what to call with each stage of the load, in words, as it begins.

    The file that the environment names holds the stage that goes on, one line of UTF-8, is
    written again every `INTERVAL_S`, and is removed when the load has ended. That it cannot be
    written is logged once.

    Args:
        log_info: takes a line for Triton's log.
    """
    started = time.perf_counter()
    name = os.environ.get(FILE_VARIABLE)
    told = _LoadingFile(Path(name), log_info) if name else None

    def on_stage(stage: str) -> None:
        log_info(f"image_edit: {time.perf_counter() - started:.1f} s, {stage}")
        if told is not None:
            told.tell(stage)

    try:
        yield on_stage
    finally:
        if told is not None:
            told.close()


class _LoadingFile:
    """The file, and the thread that keeps it fresh."""

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

    def tell(self, stage: str) -> None:
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
                # In one step, so that no reader sees half a line.
                self._unfinished.write_text(f"{self._stage}\n", encoding="utf-8")
                self._unfinished.replace(self._path)
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    self._log_info(f"image_edit: cannot tell in {self._path}: {error.strerror}")
                with contextlib.suppress(OSError):
                    self._unfinished.unlink(missing_ok=True)
