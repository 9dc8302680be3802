"""Owns work on a stranger's bytes: each piece in a process of its own, which can be killed.

A parser that hangs cannot be interrupted inside this process, and what it has allocated does not
come back. So a small process loads one module, has no threads, and forks a worker for each piece
of work: that takes two milliseconds, there and back. A worker has bounds of memory and processor
time, does one piece, and ends. All of them end with the process that they work for, even if that is
killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import math
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from model_kit import children
from model_kit.collector import making_what_stays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

START_S = 20.0
"""Far longer than loading the module takes, also on a busy machine."""
PATIENCE = 4
"""Seconds that work may take for each second of a processor: others may need the processors too."""
_LOOK_S = 0.02
_MAX_MESSAGE = 65_536
_MAX_FILES = 8
_MAX_DESCRIPTORS = 64
_PR_SET_PDEATHSIG = 1
_STDOUT, _STDERR = 1, 2
# A worker takes all its memory anew. In pages of 4 KiB that took half of the time of a decoding.
_MEMORY_IN_LARGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.top_pad=33554432"
)


class RefusedError(Exception):
    """The module refused the bytes; the text says why, for their sender."""


class TooSlowError(RefusedError):
    """The work took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"takes longer than {seconds:.1f} s to decode")


class CrashedError(RefusedError):
    """The worker ended in the middle: its parser crashed."""

    def __init__(self) -> None:
        super().__init__("its decoder crashed")


class SandboxError(Exception):
    """No worker can be had."""


class FailedError(Exception):
    """The module failed; the text is its traceback."""


@dataclass(frozen=True)
class Work:
    """One piece of work."""

    function: str
    """Of the sandbox's module. It takes the files and the options, and returns files: each as bytes
    or as a list of parts."""
    files: Sequence[bytes] = field(repr=False)
    options: Mapping[str, Any]
    """Plain JSON values."""
    seconds: float
    """It may take so many of one processor, and PATIENCE times as many in all."""
    memory: int
    """Bytes that it may allocate."""


class Worker:
    """One process for one piece of work; a context manager that kills it on exit.

    Its `fileno` becomes readable when `begin`, and later `finish`, would not block.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._process: int | None = None
        self._pid = 0
        self._seconds = 0.0
        self._deadline = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def fileno(self) -> int:
        """Return what `select` waits for."""
        return self._socket.fileno()

    def begin(self, work: Work) -> None:
        """Give the worker its work, once it is there.

        Raises:
            SandboxError: it could not be started.
        """
        message, descriptors = self._receive()
        if not message or len(descriptors) != 1:
            _close(descriptors)
            raise SandboxError("no process could be started")
        (self._process,) = descriptors
        self._pid = int(message)
        self._seconds = work.seconds
        self._deadline = time.monotonic() + PATIENCE * work.seconds
        order = {
            "function": work.function,
            "options": work.options,
            "seconds": work.seconds,
            "memory": work.memory + sum(map(len, work.files)),
        }
        files: list[int] = []
        try:
            files += map(_file, work.files)
            socket.send_fds(self._socket, [json.dumps(order).encode()], files)
        except OSError as error:
            raise SandboxError(f"the files cannot be handed over: {error}") from error
        finally:
            _close(files)

    def left(self) -> float:
        """Return how many seconds to wait for it before the next look; 0: it takes too long."""
        left = min(self._seconds - self._spent(), self._deadline - time.monotonic())
        return max(left, _LOOK_S) if left > 0 else 0.0

    def finish(self) -> list[bytes]:
        """Return the files that the function returned, once it has.

        Raises:
            RefusedError: the module refused the bytes, or the worker crashed.
            SandboxError: not all files came through.
            FailedError: the module failed.
        """
        message, descriptors = self._receive()
        try:
            if not message:
                raise CrashedError()
            answer = json.loads(message)
            if "refused" in answer:
                raise RefusedError(answer["refused"])
            if "failed" in answer:
                raise FailedError(answer["failed"])
            if len(descriptors) != answer["files"]:
                raise SandboxError("this process has no more room for files")
            return [_content(each) for each in descriptors]
        finally:
            _close(descriptors)

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            # By a descriptor: the number of a process that has ended may be another's by now.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = None
        self._socket.close()

    def _spent(self) -> float:
        """Return the processor's seconds that it has taken; 0 if it has ended."""
        try:
            stat = Path(f"/proc/{self._pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        # Behind the name, which may hold blanks: user and system time are the 12th and the 13th.
        ticks = stat.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE, _MAX_FILES)
        except ConnectionError:
            return b"", []
        return message, descriptors


class Sandbox:
    """Starts workers that have loaded one module.

    Args:
        module: its name. It has the functions of `Work`; `REFUSALS`, the exceptions by which these
            refuse bytes; and `warm_up`, which is called once, before any worker is forked.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        # Guards all below.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        # Started before it is needed, so that nobody waits for the fork.
        self._spare: Worker | None = None

    def start(self) -> None:
        """Begin to load the module, unless that was done."""
        with self._lock:
            self._ensure()

    def worker(self) -> Worker:
        """Start a worker.

        Raises:
            SandboxError: no process can be started.
        """
        with self._lock:
            try:
                self._ensure()
                worker = self._spare or self._fork()
                self._spare = None
            except OSError as error:
                raise SandboxError(f"no process can be started: {error}") from error
            with contextlib.suppress(OSError):
                self._spare = self._fork()
        return worker

    def run(self, work: Work) -> list[bytes]:
        """Have a worker do one piece of work, and wait for it.

        Raises:
            RefusedError: the module refused the bytes, or took too long over them.
            SandboxError: no worker can be had.
            FailedError: the module failed.
        """
        with self.worker() as worker:
            if not _readable(worker, START_S):
                raise SandboxError("no process could be started in time")
            worker.begin(work)
            while left := worker.left():
                if _readable(worker, left):
                    return worker.finish()
            raise TooSlowError(work.seconds)

    def close(self) -> None:
        """End the process that starts workers, and the workers with it."""
        with self._lock:
            self._stop()

    # The caller of each method below holds the lock.

    def _ensure(self) -> None:
        """Start the process that forks workers, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [_python(), "-m", __name__, self._module],
                stdin=theirs.fileno(),
                # Workers turn their stderr there too, once they are started: see `_muted`.
                stdout=subprocess.DEVNULL,
                env={
                    **children.environment(),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    # A thread for each core would not survive the fork.
                    "OPENBLAS_NUM_THREADS": "1",
                    "GLIBC_TUNABLES": _MEMORY_IN_LARGE_PAGES,
                },
                # Out of reach of the terminal's Ctrl-C: it ends with its parent.
                start_new_session=True,
            )
        self._spare = self._fork()

    def _fork(self) -> Worker:
        assert self._control is not None, "it was started"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return Worker(ours)

    def _stop(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.wait()
            self._process = None


@functools.cache
def shared(module: str) -> Sandbox:
    """Return this process's one sandbox for a module."""
    sandbox = Sandbox(module)
    atexit.register(sandbox.close)
    return sandbox


def _python() -> str:
    """Return the interpreter; inside Triton's stub, which embeds one, that of the same folder."""
    beside = Path(sys.prefix) / "bin" / "python3"
    return str(beside) if beside.exists() else shutil.which("python3") or sys.executable


def _readable(worker: Worker, seconds: float) -> bool:
    # Not select, which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _file(parts: Any) -> int:
    """Write bytes, or a list of their parts, to a file in memory; /dev/shm may be full."""
    descriptor = os.memfd_create("picture")
    for part in parts if isinstance(parts, list) else [parts]:
        rest = memoryview(part).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    return descriptor


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    # More than 2 GiB come in parts.
    while len(data) < size and (more := os.pread(descriptor, size - len(data), len(data))):
        data += more
    return data


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


# --- in the process that starts workers, and in the workers ---


def _serve(name: str) -> None:
    """Fork a worker for each socket that comes, until the parent has gone."""
    control = socket.socket(fileno=0)
    with making_what_stays():
        module = importlib.import_module(name)
        module.warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets workers that have ended
    this = os.getpid()
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            _work(socket.socket(fileno=descriptors[0]), module, this)
        _close(descriptors)


def _work(connection: socket.socket, module: Any, parent: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = _muted()
    try:
        if os.getppid() == parent:
            _answer(connection, module)
    except ConnectionError:
        pass  # nobody needs it any more
    except Exception:
        traceback.print_exc(file=log)
    finally:
        os._exit(0)


def _muted() -> TextIO:
    """Let nothing that parsers say of a stranger's bytes into the log: a line may come for each.

    Returns:
        The log, for a fault of this module. One of the work goes to the parent, see `FailedError`.
    """
    warnings.simplefilter("ignore")
    log = os.fdopen(os.dup(_STDERR), "w", buffering=1)
    os.dup2(_STDOUT, _STDERR)
    return log


def _answer(connection: socket.socket, module: Any) -> None:
    itself = os.pidfd_open(os.getpid())
    socket.send_fds(connection, [str(os.getpid()).encode()], [itself])
    os.close(itself)
    message, descriptors, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, _MAX_FILES)
    if not message:
        return  # it is not needed
    order = json.loads(message)
    files = [_content(each) for each in descriptors]
    _close(descriptors)
    _bound(order["memory"], order["seconds"])
    answer: dict[str, str | int] = {}
    outputs: list[int] = []
    try:
        made = getattr(module, order["function"])(*files, **order["options"])
        outputs = [_file(each) for each in made]
    except module.REFUSALS as error:
        answer["refused"] = str(error)
    except MemoryError:
        answer["refused"] = "needs more memory to decode than it may"
    except Exception:
        answer["failed"] = traceback.format_exc()[-_MAX_MESSAGE // 2 :]
    answer["files"] = len(outputs)
    socket.send_fds(connection, [json.dumps(answer).encode()], outputs)


def _bound(memory: int, seconds: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    # The parent looks and comes first. This bound also holds where the parent is gone.
    processor = math.ceil(seconds) + 1
    for kind, limit in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
    ):
        resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.stderr is None:
        # It was closed: else a worker's socket would get its number.
        os.dup2(_STDOUT, _STDERR)
    _serve(sys.argv[1])
