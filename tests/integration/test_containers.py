"""What the two containers run, outside of Docker: the cpu profile, laid out as in the image."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

import triton_health
from tests.docker.test_triton_entrypoint import END_TIMEOUT_S, entrypoint, tree
from tests.fakes.local_triton import echo_settings
from tests.fakes.web_client import WebClient, edit

from .server import running

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
async def test_they_serve_together_and_finish_what_runs_before_they_stop(
    tmp_path: Path,
) -> None:
    models = shutil.copytree(ROOT / "model_repository", tmp_path / "models")
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    plan = models / "fastsam" / "1" / "model.plan"
    plan.unlink(missing_ok=True)
    plan.symlink_to(tmp_path / "engines" / "fastsam" / "1" / "model.plan")  # not built yet
    settings = echo_settings(model_repository=models)
    url = f"http://127.0.0.1:{settings.triton_http_port}"
    with entrypoint(settings, "--profile=cpu") as triton:
        await asyncio.to_thread(tree, triton, settings)
        assert await asyncio.to_thread(triton_health.main, ["--url", url]) == 0
        address = f"127.0.0.1:{settings.triton_grpc_port}"
        with running(tmp_path / "log", TRITON_URL=address) as frontend:
            async with WebClient(frontend.url) as client:
                _, result = await client.finish(edit())
                assert result["status"] == "done"
                # Small steps: Triton waits for an edit only as long as its exit timeout.
                job = await client.submit(edit(num_inference_steps=20))
                await client.reached(job, step=1)
                triton.send_signal(signal.SIGTERM)
                events = await client.follow(job)
                assert events[-1]["status"] == "done"
            assert await asyncio.to_thread(triton.wait, END_TIMEOUT_S) == 0
            frontend.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(frontend.process.wait, END_TIMEOUT_S) == 0
