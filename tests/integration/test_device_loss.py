"""A device that fails for good, in the real tritonserver: the process ends and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from model_kit import stubs
from tests.fakes.web_client import WebClient, edit

from .server import Server, copied_repository, running
from .test_faults import edit_again, unready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAVE_WITHIN_S = 60.0
# What a CUDA kernel that reads beyond its memory does to torch, in an edit of 13 steps.
BROKEN_STEP = """
    def step(self, state: EditState) -> None:
        if len(state.scheduler.timesteps) == 13 and state.step == 1:
            with coded_device_errors(self._device):
                raise torch.AcceleratorError("CUDA error: an illegal memory access")
        self.whole_step(state)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    repository = copied_repository(tmp_path)
    engine = repository / "image_edit" / "1" / "image_edit" / "engine" / "engine.py"
    text = engine.read_text()
    assert "    def step(self" in text
    text = text.replace("    def step(self", "    def whole_step(self")
    engine.write_text(
        text.replace(
            "\n    @torch.inference_mode()", f"{BROKEN_STEP}\n    @torch.inference_mode()", 1
        )
    )
    with running(tmp_path / "log", MODEL_REPOSITORY=str(repository)) as started:
        yield started


@pytest.mark.slow
async def test_every_job_ends_and_the_next_one_works(server: Server) -> None:
    stub = server.stub("image_edit")
    watch = asyncio.create_task(unready(server))
    async with WebClient(server.url) as client:
        job = await client.submit(edit(num_inference_steps=13))
        waiting = await client.http.post("/api/generate/async", json=edit())
        events = await asyncio.wait_for(client.follow(job), 60)
        assert events[-1]["status"] == "error"
        assert "the device failed" in events[-1]["error"]
        # It is refused where the model has left by then; else it has waited for the next.
        assert waiting.status_code in (200, 503)
        if waiting.status_code == 200:
            events = await asyncio.wait_for(client.follow(waiting.json()["task_id"]), 120)
            assert events[-1]["status"] == "done"
    async with asyncio.timeout(LEAVE_WITHIN_S):
        while not stubs.is_dead(stub.pid):
            await asyncio.sleep(0.05)
    await watch
    await edit_again(server)
