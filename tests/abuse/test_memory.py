"""Large pictures: what they cost is given back."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.fakes.web_client import WebClient, b64, edit

if TYPE_CHECKING:
    from tests.integration.server import Server

MB = 10**6
# Of a process's own memory: what it shares with Triton stays, and is bounded by /dev/shm.
MAY_KEEP = 60 * MB
SETTLES_S = 30.0


def large(seed: int, width: int, height: int) -> str:
    """Return a smooth picture of many pixels in few bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, "JPEG", quality=70)
    return b64(buffer.getvalue())


def own_bytes(server: Server) -> dict[str, int]:
    """Return what each process has for itself."""
    found = {model: server.stub(model).pid for model in ("edit_conditions", "smart_mask")}
    found["frontend"] = server.process.pid
    return {name: int(psutil.Process(pid).memory_full_info().uss) for name, pid in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, pytest.param(24, marks=pytest.mark.soak)])
async def test_large_pictures_leave_nothing_behind(server: Server, count: int) -> None:
    server.wait_ready()
    async with WebClient(server.url) as client:
        await client.finish(edit(num_inference_steps=1))
        before = own_bytes(server)
        for number in range(count):
            # A point that hits nothing: what a refused request had is given back too.
            click = {"image": large(number, 6000, 4000), "points": [[1, 1]]}
            answer = await client.http.post("/api/smart-mask", json=click, timeout=120)
            assert answer.status_code in (200, 400), answer.text
        for number in range(count // 2):
            picture = large(number, 5600, 4000)
            small = {"num_inference_steps": 1, "width": 256, "height": 256, "debug": False}
            await client.finish(edit(input_image=picture, **small))
    deadline = time.monotonic() + SETTLES_S
    while any(now > before[name] + MAY_KEEP for name, now in own_bytes(server).items()):
        assert time.monotonic() < deadline, (before, own_bytes(server))
        await asyncio.sleep(0.5)
    print(f"\n{before} -> {own_bytes(server)}")  # noqa: T201 (for runs with -s)


async def test_a_flood_of_refused_connections_does_not_flood_the_log(server: Server) -> None:
    before = server.log.stat().st_size
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for _ in range(300):
            answer = await client.get("/livez", headers={"Host": "evil.example"})
            assert answer.status_code == 421
    assert server.log.stat().st_size - before < 100_000
