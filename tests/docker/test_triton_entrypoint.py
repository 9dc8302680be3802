"""The container's entry point around a real tritonserver that serves one tiny model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import triton_entrypoint
from frontend.launcher import installation
from model_kit import stubs
from tests.fakes.local_triton import ECHO_REPOSITORY, SHARED_MEMORY, echo, echo_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.settings import Settings

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 150.0
END_TIMEOUT_S = 60.0


def await_ends(processes: dict[str, psutil.Process]) -> None:
    """Wait until processes that were killed have ended, which takes the kernel a moment."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while not all(stubs.is_dead(each.pid) for each in processes.values()):
        assert time.monotonic() < deadline, processes
        time.sleep(0.01)


@contextlib.contextmanager
def entrypoint(
    settings: Settings, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the entry point as the container does, but with the local tritonserver.

    Args:
        settings: Triton's ports and model repository.
        arguments: more for Triton.
        variables: more for the environment.
    """
    environment = installation.environment() | variables
    environment["PATH"] = f"{installation.server().parent}:{environment['PATH']}"
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "docker" / "triton_entrypoint.py"),
            f"--model-repository={settings.model_repository}",
            f"--http-port={settings.triton_http_port}",
            *arguments,
            f"--backend-directory={installation.backends()}",
            f"--grpc-port={settings.triton_grpc_port}",
            f"--metrics-port={settings.triton_metrics_port}",
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        # Its children hold the pipe that is read to its end. It would clean up after them.
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for each in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.communicate()


def tree(process: subprocess.Popen[str], settings: Settings) -> dict[str, psutil.Process]:
    """Wait until the echo model is served and return tritonserver and its stub."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if triton_entrypoint.is_ready(f"http://127.0.0.1:{settings.triton_http_port}"):
            found = psutil.Process(process.pid).children(recursive=True)
            return {
                "tritonserver": next(each for each in found if each.name() == "tritonserver"),
                "stub": next(each for each in found if "stub" in each.name()),
            }
        time.sleep(0.05)
    raise AssertionError(f"not ready: {process.poll()}")


def heartbeats(stub: psutil.Process) -> list[Path]:
    """Return the files that are a stub's heartbeat."""
    return list(SHARED_MEMORY.glob(f"{triton_entrypoint.RUNS}*-heartbeat-{stub.pid}"))


def regions(beat: Path) -> list[Path]:
    """Return the shared memory of the run whose stub has this heartbeat."""
    prefix, _, _ = beat.name.rpartition("heartbeat-")
    return list(SHARED_MEMORY.glob(f"{prefix}*"))


def test_a_signal_ends_it_and_all_its_processes() -> None:
    settings = echo_settings()
    with entrypoint(settings) as process:
        running = tree(process, settings)
        [beat] = heartbeats(running["stub"])
        assert len(regions(beat)) > 2  # a heartbeat, a lock, and Triton's own
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_TIMEOUT_S) == 0
        assert regions(beat) == []
        await_ends(running)
        assert heartbeats(running["stub"]) == []


def test_the_next_run_removes_what_a_killed_one_has_left_and_no_other_s() -> None:
    settings, others = echo_settings(), echo_settings()
    with entrypoint(others) as other:
        [alive] = heartbeats(tree(other, others)["stub"])
        with entrypoint(settings) as process:
            [left] = heartbeats(tree(process, settings)["stub"])
        assert len(regions(left)) > 2
        with entrypoint(settings) as process:
            tree(process, settings)
            assert regions(left) == []
            assert len(regions(alive)) > 2
            process.terminate()
            process.wait(END_TIMEOUT_S)
        other.terminate()
        other.wait(END_TIMEOUT_S)


def test_a_dead_stub_ends_it_with_an_error() -> None:
    settings = echo_settings()
    with entrypoint(settings) as process:
        running = tree(process, settings)
        assert process.stderr is not None
        assert "Watching 1 stubs\n" in process.stderr  # reads up to that line
        running["stub"].kill()
        _, said = process.communicate(timeout=END_TIMEOUT_S)
        assert process.returncode == triton_entrypoint.STUB_DIED
        assert f"Stub {running['stub'].pid} died" in said
        await_ends(running)


@pytest.mark.parametrize("how", ["is stopped", "holds Python's lock"])
def test_a_stub_without_a_sign_of_life_ends_it_with_an_error(how: str, tmp_path: Path) -> None:
    settings = echo_settings()
    hurried = {triton_entrypoint.SILENCE_TIMEOUT: "5"}
    with entrypoint(settings, **hurried) as process, futures.ThreadPoolExecutor() as threads:
        running = tree(process, settings)
        if how == "is stopped":
            running["stub"].send_signal(signal.SIGSTOP)
        else:
            request = threads.submit(echo, settings, f"hold 1000 {tmp_path / 'begun'}")
        _, said = process.communicate(timeout=END_TIMEOUT_S)
        assert process.returncode == triton_entrypoint.STUB_DIED
        assert f"Stub {running['stub'].pid} gave no sign of life" in said
        await_ends(running)
        assert heartbeats(running["stub"]) == []
        if how != "is stopped":
            assert request.exception(END_TIMEOUT_S) is not None


def test_a_stub_that_died_while_others_loaded_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    stub = subprocess.Popen(["true"])
    stub.wait()
    (tmp_path / f"beat-{stub.pid}").touch()
    monkeypatch.setattr(triton_entrypoint, "is_ready", lambda url: True)
    try:
        watch = triton_entrypoint.watch(
            server, "", threading.Event(), f"{tmp_path}/beat-", END_TIMEOUT_S
        )
        assert watch == triton_entrypoint.STUB_DIED
    finally:
        triton_entrypoint.kill_group(server)
    assert f"Stub {stub.pid} died" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "exit_code"),
    [
        ("dies", triton_entrypoint.STUB_DIED),
        ("falls silent", triton_entrypoint.STUB_DIED),
        ("idle", 0),
        ("ends without work", 0),
    ],
)
def test_a_server_that_stops_and_has_nothing_left_to_do_keeps_nobody_waiting(
    how: str,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Triton itself would wait for that stub's jobs; a shell that never ends stands in for it.

    It also waits for an edit whose client left with the answer, while the other stubs end.
    """
    server = subprocess.Popen(
        ["bash", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    stub = int(server.stdout.readline())
    beat = tmp_path / f"beat-{stub}"
    beat.write_text("busy")
    stopping, found = threading.Event(), threading.Event()

    def stubs_of(process: int, heartbeats: str) -> set[int]:
        stopping.set()  # before the watch looks for silence
        found.set()
        return find_stubs(process, heartbeats)

    find_stubs = stubs.stubs_of
    monkeypatch.setattr(stubs, "stubs_of", stubs_of)
    monkeypatch.setattr(triton_entrypoint, "is_ready", lambda url: True)
    monkeypatch.setattr(triton_entrypoint, "LINGER_S", 0.1)
    silence_s = 0.1 if how == "falls silent" else END_TIMEOUT_S
    with futures.ThreadPoolExecutor() as threads, server.stdout:
        try:
            code = threads.submit(
                triton_entrypoint.watch, server, "", stopping, f"{tmp_path}/beat-", silence_s
            )
            assert found.wait(END_TIMEOUT_S)
            server.terminate()
            if how == "dies":
                os.kill(stub, signal.SIGKILL)
            if how in ("idle", "ends without work"):
                assert not futures.wait([code], 2 * triton_entrypoint.WATCH_INTERVAL_S).done
                beat.write_text("idle")
            if how == "ends without work":
                os.kill(stub, signal.SIGKILL)
            assert code.result(END_TIMEOUT_S) == exit_code
        finally:
            triton_entrypoint.kill_group(server)
    assert "No stub has work" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "exit_code"), [("idle", 0), ("busy", 1)])
def test_a_server_that_ends_by_its_timeout_fails_only_if_work_was_lost(
    said: str, exit_code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton exits with 1 then, also if it waited for a client that had left."""
    server = subprocess.Popen(
        ["bash", "-c", "trap 'exit 1' TERM; sleep 1000 & echo $!; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    beat = tmp_path / f"beat-{int(server.stdout.readline())}"
    beat.write_text(said)
    stopping = threading.Event()

    def stubs_of(process: int, heartbeats: str) -> set[int]:
        stopping.set()
        server.terminate()
        return {int(beat.name.removeprefix("beat-"))}

    monkeypatch.setattr(stubs, "stubs_of", stubs_of)
    monkeypatch.setattr(triton_entrypoint, "is_ready", lambda url: True)
    with server.stdout:
        try:
            beats = f"{tmp_path}/beat-"
            code = triton_entrypoint.watch(server, "", stopping, beats, END_TIMEOUT_S)
        finally:
            triton_entrypoint.kill_group(server)
    assert code == exit_code


def test_a_watch_that_fails_ends_it_and_all_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = tmp_path / "tritonserver"
    server.write_text("#!/bin/sh\nexec sleep 60\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    started: list[subprocess.Popen[bytes]] = []

    def fail(server: subprocess.Popen[bytes], *_: object) -> int:
        started.append(server)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(triton_entrypoint, "watch", fail)
    with pytest.raises(OSError, match="Too many open files"):
        triton_entrypoint.main([f"--model-repository={tmp_path}"])
    assert started[0].returncode == -signal.SIGKILL


# Sends the process SIGTERM while it imports psutil.
SIGNAL_AT_IMPORT = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "psutil":
            os.kill(os.getpid(), 15)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("by_nvidia", [False, True])
def test_a_signal_before_the_server_is_watched_ends_it(by_nvidia: bool, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    begin = "import sys, triton_entrypoint\n"
    if by_nvidia:
        script = tmp_path / "nvidia_entrypoint.sh"
        script.write_text('#!/bin/bash\necho "$1" >&2\nexec "$@"\n')
        script.chmod(0o755)
        begin += f"triton_entrypoint.NVIDIA = triton_entrypoint.Path({str(script)!r})\n"
    server = tmp_path / "tritonserver"
    server.write_text("#!/bin/sh\nexec sleep 60\n")
    server.chmod(0o755)
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"{begin}sys.exit(triton_entrypoint.main(sys.argv[1:]))"),
            f"--model-repository={tmp_path}",
        ],
        env=os.environ
        | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": f"{tmp_path}:{ROOT / 'docker'}",
        },
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
    )
    assert done.returncode == 128 + signal.SIGTERM
    # The script may have been ended before it could say anything.
    assert done.stderr in ("", "tritonserver\n" if by_nvidia else "")


def test_a_crashed_server_ends_it_with_the_signals_code() -> None:
    settings = echo_settings()
    with entrypoint(settings) as process:
        running = tree(process, settings)
        running["tritonserver"].kill()
        assert process.wait(END_TIMEOUT_S) == 128 + signal.SIGKILL
        await_ends(running)


def test_a_model_that_does_not_load_ends_it_with_tritons_own_code(tmp_path: Path) -> None:
    settings = echo_settings(model_repository=tmp_path)
    model = tmp_path / "echo" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("raise RuntimeError('on purpose')\n")
    config = (ECHO_REPOSITORY / "echo" / "config.pbtxt").read_text()
    (tmp_path / "echo" / "config.pbtxt").write_text(config)
    with entrypoint(settings) as process:
        _, said = process.communicate(timeout=READY_TIMEOUT_S)
        assert process.returncode == 1
        assert "on purpose" in said
        assert "died" not in said


def test_an_unknown_profile_is_refused_before_anything_starts() -> None:
    with entrypoint(echo_settings(), "--profile=cpuu") as process:
        _, said = process.communicate(timeout=END_TIMEOUT_S)
        assert process.returncode == triton_entrypoint.BAD_SETUP
        assert "one of a100-80gb, cpu, or" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "wrong"),
    [
        (triton_entrypoint.EXIT_TIMEOUT, "30m", "must be whole seconds, not '30m'"),
        (triton_entrypoint.EXIT_TIMEOUT, "-1", "must be whole seconds, not '-1'"),
        (triton_entrypoint.SILENCE_TIMEOUT, "1m", "must be 5 seconds or more, not '1m'"),
        (triton_entrypoint.SILENCE_TIMEOUT, "4.9", "must be 5 seconds or more, not '4.9'"),
    ],
)
def test_a_wrong_variable_is_named(
    variable: str,
    value: str,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as refused:
        triton_entrypoint.parse([])
    assert refused.value.code == triton_entrypoint.BAD_SETUP
    assert f"{variable}: {wrong}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "config"), [("", ""), ("cpu", "cpu"), ("a100-80gb", ""), ("h200", "h100")]
)
def test_a_known_profile_is_passed_on(profile: str, config: str) -> None:
    options, rest = triton_entrypoint.parse(
        [f"--model-repository={ROOT / 'model_repository'}", f"--profile={profile}", "--grpc-port=1"]
    )
    assert rest == ["--grpc-port=1"]
    assert triton_entrypoint.profile_problem(options.model_repository, options.profile) is None
    named = [
        argument
        for argument in triton_entrypoint.command(options)
        if argument.startswith("--model-config-name")
    ]
    assert named == ([f"--model-config-name={config}"] if config else [])
