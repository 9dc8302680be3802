"""The supervisor around a real tritonserver that serves one tiny model."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import tritonclient.utils

from frontend.launcher import installation, leftovers, preflight, supervisor
from frontend.launcher.errors import LaunchError
from frontend.launcher.supervisor import Supervisor
from frontend.launcher.tritonserver import TritonServer
from frontend.supervision import MAX_FAILED_ROUNDS
from tests.fakes.clock import Clock
from tests.fakes.local_triton import (
    ECHO_REPOSITORY,
    SHARED_MEMORY,
    as_environment,
    echo,
    echo_settings,
    processes,
    regions,
)
from tests.fakes.processes import alive, ended, said

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

    from frontend.settings import Settings

BACK_WITHIN_S = 90.0
END_WITHIN_S = 30.0


def repository_with(tmp_path: Path, initialize: str) -> Path:
    """Copy the echo model with a body for its `initialize`."""
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    with (repository / "echo" / "1" / "model.py").open("a") as model:
        model.write(f"\n    def initialize(self, args: object) -> None:\n        {initialize}\n")
    return repository


def wait_until_back(settings: Settings, old: dict[str, psutil.Process]) -> None:
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        new = processes(settings)
        if set(new) == set(old) and not set(new.values()) & set(old.values()):
            with contextlib.suppress(tritonclient.utils.InferenceServerException):
                assert echo(settings, "again") == "again"
                return
        time.sleep(0.05)
    raise AssertionError(f"not back: {processes(settings)}")


def test_it_serves_from_a_folder_whose_path_a_shell_does_not_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "it's $HOME").mkdir()
    installed = tmp_path / "it's $HOME" / "tritonserver"
    installed.symlink_to(installation.root())
    monkeypatch.setattr(installation, "root", lambda: installed)
    settings = echo_settings(model_repository=repository_with(installed.parent, "pass"))
    with Supervisor(settings):
        assert echo(settings, "hello") == "hello"


def test_a_machine_without_shared_memory_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leftovers, "_SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path / "shm")
    with pytest.raises(LaunchError, match="shm has 0 MiB free"), Supervisor(echo_settings()):
        pass


def test_it_serves_until_it_is_stopped_and_leaves_nothing() -> None:
    settings = echo_settings()
    with Supervisor(settings):
        assert echo(settings, "hello") == "hello"
        running = processes(settings)
        assert set(running) == {"guard", "tritonserver", "stub"}
        assert regions(running["guard"])
    assert alive(running.values()) == []
    assert regions(running["guard"]) == []


@pytest.mark.parametrize("victim", ["tritonserver", "stub", "guard"])
def test_whatever_is_killed_all_is_replaced(victim: str) -> None:
    settings = echo_settings()
    with Supervisor(settings):
        old = processes(settings)
        old[victim].kill()
        wait_until_back(settings, old)
        # What the killed one leaves behind dies on its own.
        ended(old.values())
        assert regions(old["guard"]) == []


@pytest.mark.parametrize("how", ["is stopped", "holds Python's lock"])
def test_a_stub_without_a_sign_of_life_is_replaced(how: str, tmp_path: Path) -> None:
    settings = echo_settings(stub_silence_timeout_s=5)
    with Supervisor(settings):
        old = processes(settings)
        assert len(list(SHARED_MEMORY.glob(f"*-heartbeat-{old['stub'].pid}"))) == 1
        client = threading.Thread(target=echo_fails, args=(settings, f"hold 1000 {tmp_path / 'x'}"))
        if how == "is stopped":
            old["stub"].send_signal(signal.SIGSTOP)
        else:
            client.start()
        wait_until_back(settings, old)
        ended(old.values())
        assert regions(old["guard"]) == []
        if client.ident is not None:
            client.join(END_WITHIN_S)
            assert not client.is_alive()


@pytest.mark.parametrize(("lived_s", "gives_up"), [(59, True), (61, False)])
def test_a_stub_that_falls_silent_soon_after_each_start_is_given_up(
    lived_s: float, *, gives_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its silence, before it is noticed, is no time in which all was well."""
    settings = echo_settings(triton_restart_limit=1)
    supervised = Supervisor(settings)
    clock = Clock()
    faults = 0

    def wait_for_fault() -> LaunchError | None:
        nonlocal faults
        clock.now += lived_s + settings.stub_silence_timeout_s
        faults += 1
        return LaunchError("silent") if faults < 4 else None

    monkeypatch.setattr(supervised, "_start", lambda: None)
    monkeypatch.setattr(supervised, "_wait_for_fault", wait_for_fault)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=clock))
    supervised._watch()
    assert (supervised.failure is not None) is gives_up
    assert faults == (2 if gives_up else 4)


def test_to_be_kept_from_looking_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    supervised, died = Supervisor(echo_settings()), LaunchError("died")
    looks = [OSError(24, "Too many open files")] * (MAX_FAILED_ROUNDS - 1)
    answers = iter([*looks, None, *looks, died])

    def fault() -> LaunchError | None:
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    monkeypatch.setattr(supervisor, "WATCH_INTERVAL_S", 0)
    monkeypatch.setattr(supervised, "_server", SimpleNamespace(fault=fault))
    assert supervised._wait_for_fault() is died


def test_a_launcher_killed_in_mid_request_leaves_nothing(tmp_path: Path) -> None:
    settings = echo_settings()
    script = (
        "import time\n"
        "from frontend.launcher.supervisor import Supervisor\n"
        "from frontend.settings import Settings\n"
        "with Supervisor(Settings()):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", script], env=as_environment(settings), stdout=subprocess.PIPE
    )
    with launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"ready\n"
        running = processes(settings)
        client = long_request(settings, tmp_path)
        launcher.kill()
    ended(running.values())
    assert regions(running["guard"]) == []
    client.join(END_WITHIN_S)
    assert not client.is_alive()


@pytest.mark.parametrize("end", ["raise OSError(24, 'Too many open files')", "sys.exit()"])
def test_a_launcher_does_not_outlive_its_watch(end: str) -> None:
    settings = echo_settings()
    script = (
        "import sys, time\n"
        "from frontend.launcher.supervisor import Supervisor\n"
        "from frontend.launcher.tritonserver import TritonServer\n"
        "from frontend.settings import Settings\n"
        "def fault(self):\n"
        f"    {end}\n"
        "with Supervisor(Settings()):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    TritonServer.fault = fault\n"
        "    time.sleep(60)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", script],
        env=as_environment(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"ready\n"
        running = processes(settings)
        said, _ = launcher.communicate(b"go on\n", timeout=END_WITHIN_S)
    assert launcher.returncode == 1
    assert b"triton-watch ended unasked" in said
    ended(running.values())
    assert regions(running["guard"]) == []


def echo_fails(settings: Settings, text: str) -> None:
    with pytest.raises(tritonclient.utils.InferenceServerException):
        echo(settings, text)


def long_request(settings: Settings, tmp_path: Path) -> threading.Thread:
    """Send a request that will fail for want of time; return once the model is at it."""
    begun = tmp_path / "begun"
    client = threading.Thread(target=echo_fails, args=(settings, f"sleep 60 {begun}"))
    client.start()
    deadline = time.monotonic() + END_WITHIN_S
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return client


def test_a_stop_does_not_wait_for_long_requests(tmp_path: Path) -> None:
    settings = echo_settings(triton_stop_timeout_s=1)
    with Supervisor(settings):
        running = processes(settings)
        client = long_request(settings, tmp_path)
        started = time.monotonic()
    assert time.monotonic() - started < END_WITHIN_S
    assert alive(running.values()) == []
    assert regions(running["guard"]) == []
    client.join(END_WITHIN_S)
    assert not client.is_alive()


@pytest.mark.parametrize(
    ("initialize", "cause"),
    [
        ("raise RuntimeError('no weights here')", "no weights here"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("import os; os._exit(3)", "echo"),
    ],
)
def test_a_model_that_does_not_load_fails_the_start_with_its_reason(
    tmp_path: Path, initialize: str, cause: str
) -> None:
    settings = echo_settings(model_repository=repository_with(tmp_path, initialize))
    with pytest.raises(LaunchError) as caught, Supervisor(settings):
        pass
    (problem,) = caught.value.problems
    assert "tritonserver ended with exit code 1 while starting" in problem
    assert cause in caught.value.log_tail
    assert processes(settings) == {}


def test_a_model_that_loads_for_too_long_fails_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = echo_settings(
        model_repository=repository_with(tmp_path, "import time; time.sleep(60)"),
        triton_start_timeout_s=0.1,
    )
    log = installation.log_file(settings.triton_grpc_port)
    log.unlink(missing_ok=True)
    wait_ready = TritonServer.wait_ready

    def wait_once_it_loads(
        server: TritonServer, timeout_s: float, stopping: threading.Event
    ) -> None:
        deadline = time.monotonic() + BACK_WITHIN_S
        while "loading: echo:1" not in said(log):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        wait_ready(server, timeout_s, stopping)

    monkeypatch.setattr(TritonServer, "wait_ready", wait_once_it_loads)
    with pytest.raises(LaunchError, match="was not ready after") as caught, Supervisor(settings):
        pass
    assert "loading: echo:1" in caught.value.log_tail
    assert processes(settings) == {}


def test_restarts_that_fail_are_repeated_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_BACKOFF_S", 0.1)
    repository = repository_with(tmp_path, "pass")
    settings = echo_settings(model_repository=repository, triton_restart_limit=2)
    with Supervisor(settings) as supervised:
        assert supervised.failure is None
        shutil.rmtree(repository)
        repository_with(tmp_path, "raise RuntimeError('broken since')")
        processes(settings)["tritonserver"].kill()
        deadline = time.monotonic() + BACK_WITHIN_S
        while supervised.failure is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert supervised.failure is not None
        assert "gave up after 2 restarts" in str(supervised.failure)
        assert processes(settings) == {}


def test_a_server_that_another_one_keeps_from_its_ports_is_not_taken_for_ready() -> None:
    settings = echo_settings()
    models = preflight.check(settings)
    with Supervisor(settings):
        second = TritonServer(settings, models)
        try:
            with pytest.raises(LaunchError, match="exit code"):
                second.wait_ready(BACK_WITHIN_S, threading.Event())
        finally:
            second.kill()
        assert echo(settings, "still here") == "still here"


def test_the_next_start_cleans_up_after_a_guard_and_launcher_killed_together(
    tmp_path: Path,
) -> None:
    settings = echo_settings()
    server = TritonServer(settings, preflight.check(settings))
    server.wait_ready(BACK_WITHIN_S, threading.Event())
    old = processes(settings)
    client = long_request(settings, tmp_path)
    # Before the kill: after it, another launcher of this machine that starts may clean up.
    assert regions(old["guard"])
    os.kill(old["guard"].pid, signal.SIGKILL)
    old["guard"].wait()
    with Supervisor(settings):
        # What the killed one leaves behind dies on its own.
        ended(old.values())
        assert regions(old["guard"]) == []
        leftovers.remove_stale()
        assert echo(settings, "a live run is not stale") == "a live run is not stale"
    client.join(END_WITHIN_S)
    server.kill()
