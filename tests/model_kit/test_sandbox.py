from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from model_kit.sandbox import (
    CrashedError,
    FailedError,
    RefusedError,
    Sandbox,
    SandboxError,
    TooSlowError,
    Work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULE = "tests.model_kit.sandboxed"
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def work(function: str, *files: bytes, seconds: float = PATIENCE_S, **options: Any) -> Work:
    return Work(function, files, options, seconds, memory=2**26)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(MODULE)
    yield made
    made.close()


def wait_until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def read_pid(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    large = bytes(range(256)) * 40_000  # more than a socket holds
    assert sandbox.run(work("echo", b"", large, times=3)) == [b"", large, large * 3]


def test_every_piece_of_work_has_a_process_of_its_own(sandbox: Sandbox) -> None:
    found = {sandbox.run(work("who", b""))[0] for _ in range(5)}
    assert len(found) == 5
    assert str(os.getpid()).encode() not in found
    wait_until(lambda: all(gone(int(pid)) for pid in found))


def test_a_parser_learns_no_setting(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_STORE_URL", "postgresql://me:secret@127.0.0.1/jobs")
    monkeypatch.setenv("ANOTHER", "is passed on")
    (environment,) = sandbox.run(work("environment"))
    assert b"is passed on" in environment
    assert b"secret" not in environment


def test_a_refusal_comes_back_in_its_words(sandbox: Sandbox) -> None:
    with pytest.raises(RefusedError, match=r"^not a picture$"):
        sandbox.run(work("refuse", b"a picture"))


def test_a_fault_of_the_module_is_no_refusal(sandbox: Sandbox) -> None:
    with pytest.raises(FailedError, match="ZeroDivisionError: a fault of ours"):
        sandbox.run(work("fail", b""))


def test_a_crash_ends_only_its_own_work(sandbox: Sandbox) -> None:
    with pytest.raises(CrashedError, match="its decoder crashed"):
        sandbox.run(work("crash", b""))
    assert sandbox.run(work("echo", b"x", times=1)) == [b"x", b"x"]


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    assert sandbox.run(work("eat", b"", size=2**24)) == [b"\0"]
    with pytest.raises(RefusedError, match="needs more memory to decode than it may"):
        sandbox.run(work("eat", b"", size=2**28))


def test_what_takes_too_long_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(TooSlowError, match=r"takes longer than 2\.0 s to decode"):
        sandbox.run(work("spin", str(file).encode(), seconds=2.0))
    wait_until(lambda: gone(read_pid(file)))


def test_a_worker_that_nobody_needs_ends(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with sandbox.worker() as worker:
        worker.begin(work("spin", str(file).encode()))
        assert not gone(read_pid(file))
    wait_until(lambda: gone(read_pid(file)))


def test_processor_time_is_bounded_where_nobody_watches(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with sandbox.worker() as worker:
        worker.begin(work("spin", str(file).encode(), seconds=0.1))
        with pytest.raises(CrashedError):
            worker.finish()


def test_where_the_starter_of_workers_is_killed_another_takes_its_place(sandbox: Sandbox) -> None:
    sandbox.run(work("who", b""))
    assert sandbox._process is not None
    sandbox._process.kill()
    sandbox._process.wait(PATIENCE_S)
    assert sandbox.run(work("echo", b"x", times=1)) == [b"x", b"x"]


def test_without_the_module_no_worker_can_be_had_and_the_log_says_why(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sandbox = Sandbox("tests.model_kit.there_is_no_such_module")
    with pytest.raises(SandboxError, match="no process"):
        sandbox.run(work("echo", b""))
    sandbox.close()
    assert "ModuleNotFoundError" in capfd.readouterr().err


# libtiff writes a line for each bad code word of a fax, and has no bound.
def test_nothing_that_a_parser_says_comes_into_the_log(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sandbox.run(work("chatter", b"a stranger's line")) == [b"a stranger's line"]
    with pytest.raises(FailedError):
        sandbox.run(work("fail", b""))
    with pytest.raises(CrashedError):
        sandbox.run(work("crash", b""))
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_the_sandbox_comes_into_the_log(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CrashedError):
        sandbox.run(work("unsettle", b""))
    assert "TypeError: 'NoneType' object is not callable" in capfd.readouterr().err


def test_files_go_in_and_come_out_where_stderr_is_closed() -> None:
    code = (
        "import os\n"
        "from model_kit.sandbox import Sandbox, Work\n"
        "os.close(2)\n"
        f"sandbox = Sandbox({MODULE!r})\n"
        "work = Work('chatter', [b'line'], {}, 60.0, 2**26)\n"
        "print(sandbox.run(work) == sandbox.run(work) == [b'line'])\n"
        "sandbox.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.stdout == b"True\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_processes_end_with_the_one_that_they_work_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "pid"
    code = (
        "from model_kit.sandbox import Sandbox, Work\n"
        f"work = Work('spin', [{str(file).encode()!r}], {{}}, 60.0, 2**26)\n"
        f"Sandbox({MODULE!r}).run(work)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        read_pid(file)
        processes = psutil.Process(parent.pid).children(recursive=True)
        assert read_pid(file) in {each.pid for each in processes}
        parent.send_signal(number)
        parent.wait(PATIENCE_S)
    wait_until(lambda: all(gone(each.pid) for each in processes))
