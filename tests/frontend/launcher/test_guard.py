"""The guard around commands that are quicker than tritonserver and misbehave on demand."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from frontend.launcher import guard, leftovers
from tests.fakes.local_triton import SHARED_MEMORY
from tests.fakes.processes import alive, ended, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S = 30


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@contextlib.contextmanager
def guarding(
    log: Path, script: str, grace_s: float = 60, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Guard a Python script that has said `ready`."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", leftovers.GUARD_MODULE),
            *("--log", log, "--grace", str(grace_s)),
            *(sys.executable, "-uc", script),
        ],
        stdin=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None and "ready" not in said(log):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def test_the_exit_code_and_the_output_are_the_servers(log: Path) -> None:
    script = "import sys; print('ready'); print('why', file=sys.stderr); sys.exit(3)"
    with guarding(log, script) as process:
        assert process.wait(TIMEOUT_S) == 3
    assert log.read_text() == "ready\nwhy\n"


def test_a_log_that_takes_no_more_is_no_fault(log: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('lost'), sys.exit(3)))\n"
        "print('ready'); time.sleep(60)"
    )
    with guarding(log, script, stderr=subprocess.PIPE) as process:
        # Stands for a full disk.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (len("ready\n"), len("ready\n")))
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 3
    assert log.read_text() == "ready\n"


def test_a_server_that_a_signal_ended(log: Path) -> None:
    script = "import os; print('ready'); os.kill(os.getpid(), 9)"
    with guarding(log, script) as process:
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGKILL


def test_a_graceful_stop_lets_the_server_finish(log: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('ready'); time.sleep(60)"
    )
    with guarding(log, script) as process:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    assert "bye" in log.read_text()


DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready'); time.sleep(60)"


def test_a_server_that_does_not_stop_in_time_is_killed(log: Path) -> None:
    with guarding(log, DEAF, grace_s=0.5) as process:
        started = time.monotonic()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGKILL
        assert time.monotonic() - started > 0.4


def test_a_stop_at_once_does_not_wait(log: Path) -> None:
    with guarding(log, DEAF, grace_s=60) as process:
        process.terminate()
        process.send_signal(signal.SIGQUIT)
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGKILL


def test_a_launcher_that_vanishes_stops_the_server_at_once(log: Path) -> None:
    with guarding(log, DEAF, grace_s=60) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGKILL


def test_a_guard_that_is_killed_takes_the_server_with_it(log: Path) -> None:
    with guarding(log, DEAF) as process:
        (server,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        ended([server])


def test_nothing_that_the_server_started_outlives_it(log: Path, tmp_path: Path) -> None:
    # A grandchild in a session of its own, whose parent dies before the guard looks.
    go_on = tmp_path / "go_on"
    script = (
        "import os, pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(f'ready {child.pid}')\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    with guarding(log, script) as process:
        grandchild = psutil.Process(int(log.read_text().split()[1]))
        go_on.touch()
        process.wait(TIMEOUT_S)
        assert alive([grandchild]) == []


def test_the_runs_shared_memory_goes_with_it(log: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "prefix = sys.argv[-1].rpartition('=')[2]\n"
        "pathlib.Path('/dev/shm', prefix + 'region').touch(); print('ready')"
    )
    with guarding(log, script) as process:
        process.wait(TIMEOUT_S)
        assert list(SHARED_MEMORY.glob(f"{leftovers.prefix(process.pid)}*")) == []


@pytest.mark.parametrize("ended_by", ["a stop", "the launcher"])
def test_the_file_of_a_load_that_was_cut_off_goes_with_it(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    file = tmp_path / "loading"
    monkeypatch.setenv(leftovers.LOADING_FILE, str(file))
    script = (
        f"import pathlib, time; pathlib.Path({str(file)!r}).write_text('weights')\n"
        "print('ready'); time.sleep(60)"
    )
    with guarding(log, script) as process:
        assert file.exists()
        assert process.stdin is not None
        if ended_by == "a stop":
            process.send_signal(signal.SIGQUIT)
        else:
            process.stdin.close()
        process.wait(TIMEOUT_S)
        assert not file.exists()


def test_the_log_starts_anew_and_stays_bounded(log: Path) -> None:
    log.write_text("an earlier run\n")
    lines = 3 * guard.LOG_BYTES // 1000
    script = f"print('ready')\nfor _ in range({lines}): print('x' * 999)\nprint('the last line')"
    with guarding(log, script) as process:
        assert process.wait(60) == 0
    files = sorted(log.parent.iterdir())
    assert [path.name for path in files] == ["log", "log.1"]
    assert all(path.stat().st_size <= guard.LOG_BYTES for path in files)
    assert log.read_text().endswith("the last line\n")
