"""Owns a client that reads the stream exactly as the known web client does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Json = dict[str, Any]
TERMINAL = ("done", "error", "cancelled")


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Encode uint8 [h, w] or [h, w, 3 or 4] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    """Plain base64, as clients send it."""
    return base64.b64encode(data).decode()


def decode(image: str | bytes) -> np.ndarray[Any, Any]:
    """Decode base64 text or encoded bytes to uint8 [h, w, 3]."""
    data = base64.b64decode(image) if isinstance(image, str) else image
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def scene(side: int = 64, seed: int = 0) -> bytes:
    """Return a smooth random picture of side² pixels, PNG."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return png(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)))


def square_mask(side: int = 64, low: float = 0.25, high: float = 0.75) -> bytes:
    """Return a white square on black, PNG, from low to high of the side."""
    mask = np.zeros((side, side), np.uint8)
    mask[int(low * side) : int(high * side), int(low * side) : int(high * side)] = 255
    return png(mask)


def edit(**changes: Any) -> Json:
    """Return a small, fast, valid removal request; `changes` replace or (None) null its fields."""
    request: Json = {
        "prompt": "remove the object",
        "input_image": b64(scene()),
        "conditional_images": [b64(square_mask())],
        "task_type": "removal",
        "input_quality": "original",
        "num_inference_steps": 2,
        "seed": 7,
    }
    return request | changes


def long_edit() -> Json:
    """Return a request whose hundred large steps outlast the rest of a test; cancel it."""
    return edit(num_inference_steps=100, width=512, height=512)


class WebClient:
    """The calls of the known web client, over one httpx client."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(base_url=url, timeout=120, limits=limits)

    async def __aenter__(self) -> WebClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def submit(self, request: Json | None = None) -> str:
        """Submit an edit and return its task_id."""
        answer = await self.http.post("/api/generate/async", json=request or edit())
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["status"] == "queued"
        return str(body["task_id"])

    async def blocks(self, task_id: str, last_event_id: int | None = None) -> AsyncGenerator[str]:
        """Yield the stream's blocks, split at LF LF, until the server closes it."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        path = f"/api/generate/stream/{task_id}"
        async with self.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            pending = ""
            async for text in answer.aiter_text():
                pending += text
                while "\n\n" in pending:
                    block, pending = pending.split("\n\n", 1)
                    yield block
            assert pending == ""

    async def events(self, task_id: str, last_event_id: int | None = None) -> AsyncGenerator[Json]:
        """Yield the data blocks' JSON, with the following `id:` block's number as `seq`.

        What no number follows, a waiting job's place, has none.
        """
        data: Json | None = None
        # Closed with this one: else the connection would live on until the collector comes.
        async with contextlib.aclosing(self.blocks(task_id, last_event_id)) as blocks:
            async for block in blocks:
                if block.startswith("data:"):
                    assert "\n" not in block
                    assert "\r" not in block
                    assert data is None
                    data = json.loads(block.removeprefix("data:"))
                if block == ": not in the log":
                    assert data is not None
                    assert data["status"] in ("queued", "processing")
                    yield data
                    data = None
                if block.startswith("id:"):
                    assert data is not None
                    yield data | {"seq": int(block.removeprefix("id:"))}
                    data = None
        assert data is None

    async def follow(self, task_id: str, last_event_id: int | None = None) -> list[Json]:
        """Return all events until the server closes the stream."""
        return [event async for event in self.events(task_id, last_event_id)]

    async def finish(self, request: Json | None = None) -> tuple[list[Json], Json]:
        """Submit, follow to `done`, and return the events and /result's answer."""
        task_id = await self.submit(request)
        events = await self.follow(task_id)
        assert events[-1]["status"] == "done", events[-1]
        answer = await self.http.get(f"/api/generate/result/{task_id}")
        assert answer.status_code == 200, answer.text
        return events, answer.json()

    async def cancel(self, task_id: str) -> httpx.Response:
        """Post a cancel."""
        return await self.http.post(f"/api/generate/async/cancel/{task_id}")

    async def status(self, task_id: str) -> Json:
        """Return the job's status."""
        answer = await self.http.get(f"/api/generate/status/{task_id}")
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def services(self) -> Json:
        """Return how each part of the server is."""
        answer = await self.http.get("/api/system/health")
        body: Json = answer.json()["services"]
        return body

    async def wait_status(self, task_id: str, *wanted: str, timeout_s: float = 60) -> Json:
        """Poll until the job's status is one of `wanted`."""
        async with asyncio.timeout(timeout_s):
            while (body := await self.status(task_id))["status"] not in wanted:
                await asyncio.sleep(0.02)
        return body

    async def reached(self, task_id: str, step: int) -> None:
        """Return once the job has taken its `step`th step."""
        async with contextlib.aclosing(self.events(task_id)) as events:
            async for event in events:
                if event["current_step"] >= step:
                    return
        raise AssertionError(f"it ended before step {step}")


def cancel_and_listen(url: str, task_id: str) -> tuple[str, str]:
    """Cancel a job, read its stream to the end, and only then look for the cancel's answer.

    Returns:
        What has been answered to the cancel by the stream's end, and the whole stream.

    Raises:
        BlockingIOError: nothing has.
    """
    address = urlsplit(url)
    stream, cancel = (
        socket.create_connection((address.hostname, address.port), timeout=60) for _ in range(2)
    )
    with stream, cancel:
        stream.sendall(
            f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        received = stream.recv(65536)
        path = f"/api/generate/async/cancel/{task_id}"
        cancel.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        while not received.endswith(b"0\r\n\r\n"):
            piece = stream.recv(65536)
            assert piece, received
            received += piece
        cancel.setblocking(False)
        return cancel.recv(65536).decode(), received.decode()


def check_stream(events: list[Json], steps: int) -> None:
    """Assert what every complete stream of a finished edit promises."""
    assert [event["status"] for event in events[:-1]] == sorted(
        (event["status"] for event in events[:-1]), key=["queued", "processing"].index
    )
    assert events[-1]["status"] == "done"
    assert events[-1]["progress"] == 1.0
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress)
    assert all(event["progress"] < 1.0 for event in events[:-1])
    seen = [event["current_step"] for event in events if event["stage"] == "denoising"]
    assert seen == list(range(1, steps + 1))
    assert all(event["error"] is None for event in events)
    seqs = [event["seq"] for event in events if "seq" in event]
    assert seqs == sorted(set(seqs))
