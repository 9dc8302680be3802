from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from frontend.launcher import leftovers
from tests.fakes.local_triton import SHARED_MEMORY
from tests.fakes.processes import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process of a given name that carries the prefix of a given guard."""
    started = []

    def start(name: str, guard_pid: int, *before: str) -> subprocess.Popen[bytes]:
        program = tmp_path / name
        program.write_text("#!/bin/sh\nread _\n")
        program.chmod(0o755)
        line = [*before, str(program), f"{leftovers.prefix(guard_pid)}region"]
        started.append(subprocess.Popen(line, stdin=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def region() -> Iterator[Callable[[int], Path]]:
    created = []

    def create(guard_pid: int) -> Path:
        created.append(SHARED_MEMORY / f"{leftovers.prefix(guard_pid)}region")
        created[-1].touch()
        return created[-1]

    yield create
    for path in created:
        path.unlink(missing_ok=True)


def test_what_a_dead_guard_left_is_removed(
    dead_pid: int, start: Start, region: Callable[[int], Path]
) -> None:
    orphan = start("triton_python_backend_stub", dead_pid)
    memory = region(dead_pid)
    leftovers.remove_stale()
    assert orphan.poll() is not None
    assert not memory.exists()


def test_shared_memory_alone_is_enough_to_find_it(
    dead_pid: int, region: Callable[[int], Path]
) -> None:
    memory = region(dead_pid)
    leftovers.remove_stale()
    assert not memory.exists()


def test_another_program_that_took_the_dead_guards_pid_is_no_guard(
    region: Callable[[int], Path],
) -> None:
    memory = region(os.getpid())
    leftovers.remove_stale()
    assert not memory.exists()


UNSHARE = ("unshare", "--user", "--pid", "--fork", "--kill-child")


@pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="this process may make no namespaces",
)
def test_a_container_s_processes_live_on(dead_pid: int, start: Start) -> None:
    container = psutil.Process(start("tritonserver", dead_pid, *UNSHARE).pid)
    while not (found := [each for each in container.children() if each.name() == "tritonserver"]):
        assert container.is_running()
        time.sleep(0.01)
    leftovers.remove_stale()
    assert alive(found) == found


def test_programs_that_only_mention_the_prefix_live_on(dead_pid: int, start: Start) -> None:
    editor = start("editor", dead_pid)
    leftovers.remove_stale()
    assert editor.poll() is None


def test_other_shared_memory_stays(tmp_path: Path) -> None:
    other = SHARED_MEMORY / f"other-{os.getpid()}"
    other.touch()
    try:
        leftovers.remove_stale()
        assert other.exists()
    finally:
        other.unlink()
