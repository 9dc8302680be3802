from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from model_kit import heartbeat
from model_kit.heartbeat import INTERVAL_S, PREFIX_VARIABLE, Listener
from tests.fakes.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_S = 60.0
SCRIPT = """
import ctypes, sys
from model_kit import heartbeat
work = []
heartbeat.start(print, lambda: bool(work))
print("started", flush=True)
work += [sys.stdin.readline()]
print("busy", flush=True)
sys.stdin.readline()
ctypes.PyDLL(None).sleep(1000)
"""


class Process:
    """A process's file, and a listener with a clock of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(time, "monotonic", self.clock)
        self.file = folder / "run-7"
        self.listener = Listener(f"{folder}/run-", 7, 60)
        self._beats = 0

    def beat(self) -> None:
        self._beats += 1
        self.file.touch()
        os.utime(self.file, ns=(self._beats, self._beats))

    def looks(self, seconds: float, every: float = 0.5) -> bool:
        """Look for so many seconds; return what the last look finds."""
        found = False
        for _ in range(round(seconds / every)):
            self.clock.now += every
            found = self.listener.is_silent()
        return found


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(tmp_path, monkeypatch)


def test_silence_counts_once_it_has_lasted_and_ends_with_the_next_beat(process: Process) -> None:
    process.beat()
    assert not process.looks(60)
    assert process.looks(1)
    process.beat()
    assert not process.looks(60)
    assert process.looks(1)


def test_a_process_that_beats_is_never_silent(process: Process) -> None:
    for _ in range(300):
        process.beat()
        assert not process.looks(INTERVAL_S)


def test_a_process_that_never_beats_is_never_silent_nor_idle(process: Process) -> None:
    assert not process.listener.is_idle()
    assert not process.looks(3600)
    (process.file.parent / "run-77").touch()  # another one's
    assert not process.looks(3600)


def test_a_removed_file_is_silence_until_the_next_beat(process: Process) -> None:
    process.beat()
    assert not process.looks(30)
    process.file.unlink()
    assert not process.looks(30)
    assert process.looks(1)
    process.beat()
    assert not process.looks(60)


def test_a_clock_that_was_set_back_changes_nothing(process: Process) -> None:
    process.beat()
    process.looks(59)
    os.utime(process.file, (0, 0))
    assert not process.looks(59)


def test_time_in_which_nobody_looked_does_not_count(process: Process) -> None:
    """A laptop sleeps, a container is paused: the listener's clock has gone on, the beats not."""
    process.beat()
    assert not process.looks(50)
    process.clock.now += 86400
    assert not process.listener.is_silent()
    process.beat()
    assert not process.looks(60)


def test_a_listener_without_processor_time_is_patient(process: Process) -> None:
    process.beat()
    assert not process.looks(600, every=10)
    assert process.looks(20, every=10)


def test_a_process_beats_and_says_if_it_has_work_until_its_code_keeps_pythons_lock(
    tmp_path: Path,
) -> None:
    prefix = str(tmp_path / "run-")
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, PREFIX_VARIABLE: prefix},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"started\n"
            file = tmp_path / f"run-{child.pid}"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            for _ in range(2):
                wait_for_beat(file)
            file.unlink()
            wait_for_beat(file)
            listener = Listener(prefix, child.pid, 3)
            assert not listener.is_silent()
            wait_until_idle(listener, True)
            child.stdin.write(b"here is work\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"busy\n"
            wait_until_idle(listener, False)
            child.stdin.write(b"go on\n")
            child.stdin.flush()
            deadline = time.monotonic() + WITHIN_S
            while not listener.is_silent():
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            child.kill()
    heartbeat.remove_files(prefix)
    assert list(tmp_path.iterdir()) == []


# A file that the kernel lets nobody shorten.
SEALED = """
import fcntl, os
from model_kit import heartbeat

file = os.memfd_create("beat", os.MFD_ALLOW_SEALING)
os.write(file, b"busy")
fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
path = f"{os.environ[heartbeat.PREFIX_VARIABLE]}{os.getpid()}"
os.symlink(f"/proc/self/fd/{file}", path)
heartbeat.start(print)
print(os.pread(file, 9, 0).decode())
"""


def test_a_beat_does_not_give_its_memory_away(tmp_path: Path) -> None:
    """A full /dev/shm would not give it back."""
    assert output_of(SEALED, tmp_path) == ("", "idle\n")


def output_of(script: str, folder: Path) -> tuple[str, str]:
    """Run Python with heartbeats in a folder; return its stderr and its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, PREFIX_VARIABLE: str(folder / "run-")},
        capture_output=True,
        text=True,
    )
    return done.stderr, done.stdout


def wait_until_idle(listener: Listener, idle: bool) -> None:
    """Return once the process has said so."""
    deadline = time.monotonic() + WITHIN_S
    while listener.is_idle() != idle:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_beat(file: Path) -> None:
    """Return once the file has another time than now, or is there at last."""
    before = file.stat().st_mtime_ns if file.exists() else None
    deadline = time.monotonic() + WITHIN_S
    while not file.exists() or file.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_prefix_there_is_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    for none in (None, ""):
        if none is None:
            monkeypatch.delenv(PREFIX_VARIABLE, raising=False)
        else:
            monkeypatch.setenv(PREFIX_VARIABLE, none)
        threads = set(threading.enumerate())
        heartbeat.start(print)()
        assert set(threading.enumerate()) <= threads


# Its thread never beats again.
UNLOADED = """
import os
from model_kit import heartbeat

heartbeat.INTERVAL_S = 1000.0
work = [1]
beat = heartbeat.start(print, lambda: bool(work))
listener = heartbeat.Listener(os.environ[heartbeat.PREFIX_VARIABLE], os.getpid(), 60)
before = listener.is_idle()
work.clear()
beat()
print(before, listener.is_idle())
"""


def test_a_model_that_is_unloaded_beats_at_once(tmp_path: Path) -> None:
    """It may end within a second after its work, and has lost none then."""
    assert output_of(UNLOADED, tmp_path) == ("", "False True\n")


def test_a_file_that_cannot_be_written_fails_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX_VARIABLE, str(tmp_path / "missing" / "run-"))
    with pytest.raises(FileNotFoundError):
        heartbeat.start(print)
