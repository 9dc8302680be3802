"""Owns a REST and SSE client that notes when it received what."""

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from benchmarks.pictures import base64_png, disc, photograph

TERMINAL = {"done", "error", "cancelled"}


@dataclass(frozen=True)
class Event:
    """One message of a job's stream."""

    number: int
    """Sequence number of the event in the job."""
    at: float
    """When the event was received, by time.perf_counter(), in seconds."""
    message: dict[str, Any]
    """The JSON object."""

    @property
    def terminal(self) -> bool:
        """Return whether this event is the job's last."""
        return self.message["status"] in TERMINAL


def edit_request(size: int, steps: int) -> dict[str, Any]:
    """Build an insertion with a reference: three condition images, true guidance, a fixed seed."""
    return {
        "prompt": "put the object there",
        "negative_prompt": " ",
        "input_image": base64_png(photograph(size, seed=1)),
        "conditional_images": [base64_png(disc(size))],
        "reference_image": base64_png(photograph(size, seed=2)),
        "task_type": "insertion",
        "input_quality": "original",  # "resized" would enlarge any smaller size to 512 pixels
        "num_inference_steps": steps,
        "true_cfg_scale": 4.0,
        "seed": 0,
    }


def connect(url: str) -> httpx.AsyncClient:
    """Open a client without a limit on connections; a minute of silence is an error."""
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=60, limits=unlimited, trust_env=False)


async def submit(client: httpx.AsyncClient, request: dict[str, Any]) -> str:
    """Submit a job and return its task id."""
    response = await client.post("/api/generate/async", json=request)
    task_id: str = response.raise_for_status().json()["task_id"]
    return task_id


async def events(client: httpx.AsyncClient, task_id: str) -> AsyncGenerator[Event, None]:
    """Follow a job until the server closes its stream."""
    async with aconnect_sse(client, "GET", f"/api/generate/stream/{task_id}") as source:
        source.response.raise_for_status()
        async for block in source.aiter_sse():
            at = time.perf_counter()
            if block.data:  # a block with only an id announces the next number
                yield Event(int(block.id), at, json.loads(block.data))


async def cancel(client: httpx.AsyncClient, task_id: str) -> None:
    """Cancel a job, and wait for the server's answer."""
    (await client.post(f"/api/generate/async/cancel/{task_id}")).raise_for_status()


async def follow(client: httpx.AsyncClient, task_id: str) -> list[Event]:
    """Follow a job to its end.

    Raises:
        RuntimeError: the job ended in an error, or its stream ended before the job.
    """
    received = [event async for event in events(client, task_id)]
    if not received or not received[-1].terminal:
        raise RuntimeError(f"the stream of {task_id} ended before the job")
    if error := received[-1].message["error"]:
        raise RuntimeError(f"{task_id}: {error}")
    return received


async def result(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """Fetch a finished job's result."""
    response = await client.get(f"/api/generate/result/{task_id}")
    body: dict[str, Any] = response.raise_for_status().json()
    return body


async def edit(client: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    """Submit a job, follow it to its end and return its result.

    Raises:
        RuntimeError: the job ended in an error, or its stream ended before the job.
    """
    task_id = await submit(client, request)
    await follow(client, task_id)
    return await result(client, task_id)
