"""Processes that die inside Triton's container, and containers that stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from concurrent import futures
from typing import TYPE_CHECKING

import pytest

from tests.fakes.web_client import WebClient, edit, scene

from . import engine
from .stack import FOLDER, SERVICES, Stack, image

if TYPE_CHECKING:
    from tests.fakes.web_client import Json

EDIT_STUB = ("python_backend_stub", "/image_edit/")
# Longer than all that the tests do beside it.
# Lost once, it ends.
LONG = {"num_inference_steps": 100, "input_quality": "resized", "retry": False}


async def until_it_runs(client: WebClient, job: str) -> None:
    async with contextlib.aclosing(client.events(job)) as events:
        async for event in events:
            assert event["status"] in ("queued", "processing"), event
            if event["current_step"] >= 1:
                return


async def ends(client: WebClient, jobs: list[str]) -> list[Json]:
    return [(await client.follow(job))[-1] for job in jobs]


@pytest.mark.parametrize(
    ("number", "name", "argument", "code"),
    [
        (signal.SIGKILL, "tritonserver", "", 128 + signal.SIGKILL),
        (signal.SIGKILL, *EDIT_STUB, 1),
        (signal.SIGKILL, "python_backend_stub", "/smart_mask/", 1),
        (signal.SIGSTOP, *EDIT_STUB, 1),
    ],
)
async def test_a_killed_or_stopped_process_brings_the_container_back_and_waiting_edits_are_served(
    stack: Stack, client: WebClient, number: int, name: str, argument: str, code: int
) -> None:
    container = stack.container("triton-cpu")
    restarts = stack.inspect("triton-cpu")["RestartCount"]
    regions = stack.shared_memory()
    assert regions
    # As many as Triton has at once, which are lost with it.
    taken = [await client.submit(edit(**LONG)) for _ in range(2)]
    waiting = [await client.submit(edit(seed=number)) for number in range(3)]
    await until_it_runs(client, taken[0])
    await client.wait_status(taken[1], "processing")
    since = engine.engine_time()
    await asyncio.to_thread(stack.signal, number, name, argument)
    for end in await ends(client, taken):
        assert end["status"] == "error"
        assert end["error"].startswith("503"), end
    died, _, _ = await asyncio.to_thread(
        engine.await_events, container, since, "die", "start", "health_status: healthy"
    )
    assert died["Actor"]["Attributes"]["exitCode"] == str(code)
    assert [each["status"] for each in await ends(client, waiting)] == ["done"] * 3
    assert stack.inspect("triton-cpu")["RestartCount"] == restarts + 1
    assert not regions & stack.shared_memory()


async def test_a_triton_that_is_stopped_finishes_its_edit(stack: Stack, client: WebClient) -> None:
    container = stack.container("triton-cpu")
    running = await client.submit(edit(num_inference_steps=20, input_quality="resized"))
    waiting = [await client.submit(edit(seed=number)) for number in range(3)]
    await until_it_runs(client, running)
    since = engine.engine_time()
    stopping = asyncio.create_task(asyncio.to_thread(stack.compose, "stop", "triton-cpu"))
    try:
        await asyncio.to_thread(engine.await_events, container, since, "kill")
        assert (await client.status(running))["status"] == "processing"
        (end,) = await ends(client, [running])
        assert end["status"] == "done"
        (died,) = await asyncio.to_thread(engine.await_events, container, since, "die")
        assert died["Actor"]["Attributes"]["exitCode"] == "0"
    finally:
        await asyncio.gather(stopping, return_exceptions=True)
        await asyncio.to_thread(stack.compose, "start", "triton-cpu")
    await asyncio.to_thread(
        engine.await_events, container, since, "start", "health_status: healthy"
    )
    assert [each["status"] for each in await ends(client, waiting)] == ["done"] * 3


def in_store(path: str) -> bool:
    """Return whether a file of the volumes belongs to the store of jobs, which any job changes."""
    return path.startswith("state/")


def test_a_stack_that_is_stopped_finishes_a_direct_clients_edit(stack: Stack) -> None:
    bundles = {path: state for path, state in stack.volume_files().items() if not in_store(path)}
    containers = {service: stack.container(service) for service in SERVICES}
    direct = [
        *("docker", "run", "--rm", "--interactive", f"--network={stack.project}_models"),
        *("--entrypoint=python", image("frontend"), "-c", (FOLDER / "direct_edit.py").read_text()),
        # Longer than the frontend takes to stop, which goes first.
        *("triton:8001", "40"),
    ]
    since = engine.engine_time()
    with engine.following(direct, timeout_s=900, stdin=scene()) as stages:
        assert any(line.startswith(b"denoising") for line in stages)
        with futures.ThreadPoolExecutor() as threads:
            stopping = threads.submit(stack.compose, "stop")
            rest = threads.submit(list, stages)
            engine.await_events(containers["triton-cpu"], since, "kill")
            assert not rest.done(), "the edit was over before Triton got SIGTERM"
            assert rest.result()[-1].startswith(b"done ")
            stopping.result()
    for container in containers.values():
        (died,) = engine.await_events(container, since, "die")
        assert died["Actor"]["Attributes"]["exitCode"] == "0"
    files = stack.volume_files()
    # Its writer closed it: SQLite's two files beside it are gone.
    assert [path for path in files if in_store(path)] == ["state/jobs.db"]
    # The bundles as they were, and nothing of the pictures.
    assert {path: state for path, state in files.items() if not in_store(path)} == bundles
    stack.compose("up", "--detach", "--wait")
