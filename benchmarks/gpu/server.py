"""Owns measuring the whole server on a GPU: a real tritonserver, the frontend, and the demo bundle.

It needs the packages of both. Weights of the full size would not fit on the disk of most loans.
"""

import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import client as rest
from benchmarks import latency
from benchmarks.gpu import machine
from benchmarks.gpu.edits import BUNDLE
from benchmarks.server import serving
from export.demo_edits import bundle as demo_bundle

REPOSITORY = Path(__file__).parents[2] / "model_repository"
ON_CPU, ON_GPU = "{ kind: KIND_CPU count: 1 }", "{ kind: KIND_GPU count: 1 gpus: [ 0 ] }"


def measure() -> dict[str, Any]:
    """Serve the demo bundle on the device, and measure what clients see."""
    if not demo_bundle.is_current(BUNDLE):
        demo_bundle.place(BUNDLE)
    runs = machine.current.scale.of(20, 2)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "model_repository")
        shutil.copytree(REPOSITORY, repository)
        # The models look for the demo's bundles two folders above.
        Path(folder, "bundles").symlink_to(BUNDLE.parent)
        if machine.current.scale.full:
            config = repository / "image_edit" / "configs" / "cpu.pbtxt"
            config.write_text(config.read_text(encoding="utf-8").replace(ON_CPU, ON_GPU))
        with serving(None, MODEL_REPOSITORY=str(repository)) as server:
            size = machine.current.scale.of(512, 64)
            events = asyncio.run(latency.measure(server.rest, runs=runs, size=size))["ms"]
            found = {name: each["median"] for name, each in events.items()}
            found |= asyncio.run(_after_a_cancel(server.rest, runs, size))
    return {
        "runs": runs,
        "size": size,
        "ms": found,
        "summary": [
            f"{key.replace('_', ' ')} {found[key]} ms"
            for key in ("step", "first_event", "cancelled", "next_step")
        ],
    }


async def _after_a_cancel(url: str, runs: int, size: int) -> dict[str, float]:
    """Cancel a running job while another waits.

    Returns:
        Milliseconds from sending the cancel to the other job's first step, and how many of the
        other job's steps reached its subscriber, as a fraction.
    """
    seconds, fractions = [], []
    async with rest.connect(url) as client:
        for _ in range(runs):
            first = await rest.submit(client, rest.edit_request(size, steps=100))
            await _first_step(client, first)
            second = await rest.submit(client, rest.edit_request(size, steps=4))
            sent = time.perf_counter()
            await rest.cancel(client, first)
            received = await rest.follow(client, second)
            steps = {event.message["current_step"]: event.at for event in reversed(received)}
            seconds.append(steps[1] - sent)
            fractions.append(len(steps.keys() - {0}) / 4)
    return {
        "next_step": round(1e3 * statistics.median(seconds), 1),
        "steps_received": round(statistics.fmean(fractions), 3),
    }


async def _first_step(client: httpx.AsyncClient, task_id: str) -> None:
    async for event in rest.events(client, task_id):
        if event.message["current_step"] >= 1:
            return
    raise RuntimeError(f"{task_id} ended before its first step")
