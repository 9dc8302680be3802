"""What dies in mid-job: tritonserver, a stub. Clear errors, no hang, and recovery."""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frontend.launcher import leftovers
from tests.fakes.processes import alive
from tests.fakes.web_client import TERMINAL, Json, WebClient, b64, edit, long_edit

from .mask_scenes import enlarged, iou, mask_of, numbered, scene
from .server import ROOT, Server, running

if TYPE_CHECKING:
    import psutil

END_WITHIN_S = 60.0
SHARED_MEMORY = Path("/dev/shm")


async def kill_in_mid_job(
    server: Server, victim: psutil.Process, behind: list[str] | None = None
) -> list[Json]:
    """Kill `victim` while a job runs that is not to be begun anew; return the job's events.

    Args:
        server: the server that `victim` belongs to.
        victim: the process to kill.
        behind: gets the task_ids of two more jobs: one that Triton has, and one that waits.
    """
    async with WebClient(server.url) as client:
        running_job = await client.submit(long_edit() | {"retry": False})
        subscribers = [asyncio.create_task(client.follow(running_job)) for _ in range(3)]
        await client.reached(running_job, step=1)
        if behind is not None:
            behind += [await client.submit(edit(retry=False)) for _ in range(2)]
            await client.wait_status(behind[0], "processing")
        victim.send_signal(signal.SIGKILL)
        streams = await asyncio.wait_for(asyncio.gather(*subscribers), END_WITHIN_S)
        for events in streams:
            assert events[-1]["status"] == "error"
            assert sum(event["status"] in TERMINAL for event in events) == 1
        result = await client.http.get(f"/api/generate/result/{running_job}")
        assert result.status_code == 500
        assert result.json()["detail"] == streams[0][-1]["error"]
        return streams[0]


async def edit_again(server: Server) -> None:
    """Assert that the next edit works, without any restart of the frontend by us."""
    await asyncio.to_thread(server.wait_ready)
    async with WebClient(server.url) as client:
        _, result = await client.finish()
        assert result["status"] == "done"


async def unready(server: Server, timeout_s: float = 120) -> str:
    """Wait until readiness fails and return its text."""
    async with WebClient(server.url) as client, asyncio.timeout(timeout_s):
        while (answer := await client.http.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.05)
    assert answer.status_code == 503
    return answer.text


async def test_triton_killed_in_mid_job(fragile_server: Server) -> None:
    behind: list[str] = []
    events = await kill_in_mid_job(fragile_server, fragile_server.tritonserver(), behind)
    assert "Triton" in events[-1]["error"]
    await unready(fragile_server)
    async with WebClient(fragile_server.url) as client:
        taken, waiting = behind
        following = asyncio.create_task(client.follow(waiting))
        assert (await client.follow(taken))[-1]["status"] == "error"
        answer = await client.http.post("/api/generate/async", json=edit())
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert isinstance(answer.json()["detail"], str)
        events = await asyncio.wait_for(following, 300)
    assert events[-1]["status"] == "done"
    prefix = "Waiting for Triton to load the models: "
    assert [event for event in events if (event["loading_message"] or "").startswith(prefix)]
    await edit_again(fragile_server)


async def test_an_edit_whose_triton_is_killed_makes_the_same_picture(
    fragile_server: Server,
) -> None:
    # A step takes longer than the news of it, so that it is killed before its end.
    request = edit(num_inference_steps=10, width=384, height=384)
    async with WebClient(fragile_server.url) as client:
        _, undisturbed = await client.finish(request)
        victim = fragile_server.tritonserver()
        task_id = await client.submit(request)
        following = asyncio.create_task(client.follow(task_id))
        await client.reached(task_id, step=1)
        victim.send_signal(signal.SIGKILL)
        events = await asyncio.wait_for(following, 300)
        assert (events[-1]["status"], events[-1]["restarts"]) == ("done", 1)
        progress = [event["progress"] for event in events]
        assert progress == sorted(progress)
        result = (await client.http.get(f"/api/generate/result/{task_id}")).json()
    assert result["image"] == undisturbed["image"]


@pytest.mark.parametrize(
    "model", ["image_edit", pytest.param("edit_conditions", marks=pytest.mark.slow)]
)
async def test_a_stub_killed_is_noticed_and_brought_back(
    fragile_server: Server, model: str
) -> None:
    watch = asyncio.create_task(unready(fragile_server))
    await kill_in_mid_job(fragile_server, fragile_server.stub(model))
    await watch
    await edit_again(fragile_server)


@pytest.mark.slow
async def test_jobs_outlive_a_stub_that_gives_no_sign_of_life(tmp_path: Path) -> None:
    # Time enough to submit them, also on a slow disk.
    patience = {"STUB_SILENCE_TIMEOUT_S": "30", "PING_TIMEOUT_S": "30"}
    with running(tmp_path / "log", **patience) as server:
        async with WebClient(server.url) as client:
            server.stub("image_edit").send_signal(signal.SIGSTOP)
            # Triton has two of them at most.
            jobs = [await client.submit(edit()) for _ in range(3)]
            async with asyncio.timeout(300):
                streams = [await client.follow(job) for job in jobs]
        assert [events[-1]["status"] for events in streams] == ["done"] * 3
        assert "image_edit gave no sign of life for 30 s" in server.log.read_text()


async def test_every_python_model_has_a_heartbeat_that_tells_of_work(
    server: Server, client: WebClient
) -> None:
    models = [path.parents[1].name for path in (ROOT / "model_repository").glob("*/1/model.py")]
    assert len(models) == 4
    for model in models:
        await _until_heartbeat_says(server, model, "idle")
    job = await client.submit(long_edit())  # the heart beats once a second
    await _until_heartbeat_says(server, "image_edit", "busy")
    await client.cancel(job)
    await _until_heartbeat_says(server, "image_edit", "idle")


async def _until_heartbeat_says(server: Server, model: str, words: str) -> None:
    def heartbeat() -> str:
        (file,) = SHARED_MEMORY.glob(f"*-heartbeat-{server.stub(model).pid}")
        return file.read_text()

    async with asyncio.timeout(60):
        while heartbeat() != words:
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_hundred_pictures_go_through_a_cache_that_holds_five(
    fragile_server: Server,
) -> None:
    """Every picture stays known by its id: what the model forgets, the frontend sends again."""
    async with WebClient(fragile_server.url) as client:
        drawn = scene(1, 256)
        request = {"points": [drawn.middle]}
        ids = []
        for image in numbered(drawn.png, 100):
            answer = await client.http.post(
                "/api/smart-mask", json={"image": b64(image), **request}
            )
            ids.append(answer.json()["image_id"])
        cache = {"evictions": 0}
        async with asyncio.timeout(30):  # the frontend knows what the last ping answered
            while cache["evictions"] < 95:
                cache = (await client.services())["segmentation"]["cache"]
        assert cache["images"] == 5
        assert cache["bytes"] <= cache["max_bytes"]
        known = []
        for image_id in (ids[-1], ids[0], ids[0]):
            answer = await client.http.post(
                "/api/smart-mask", json={"image_id": image_id, **request}
            )
            assert answer.status_code == 200
            mask = mask_of(base64.b64decode(answer.json()["mask_base64"]))
            assert iou(mask, drawn.truth) > 0.85
            known.append(answer.json()["cached"])
        assert known == [True, False, True]


@pytest.mark.parametrize("model", ["smart_mask", pytest.param("fastsam", marks=pytest.mark.slow)])
async def test_a_mask_stub_killed_under_requests_is_brought_back(
    fragile_server: Server, model: str
) -> None:
    large = enlarged(scene(2).png, 2500)
    async with WebClient(fragile_server.url) as client:

        async def post(number: int) -> tuple[int, str]:
            image = b64(large + f"{model}{number}".encode())
            answer = await client.http.post(
                "/api/smart-mask", json={"image": image, "auto_detect": True}
            )
            return answer.status_code, str(answer.json().get("detail"))

        victim = fragile_server.stub(model)
        watch = asyncio.create_task(unready(fragile_server))
        requests = [asyncio.create_task(post(number)) for number in range(64)]
        async with asyncio.timeout(END_WITHIN_S):
            while not (await client.services())["segmentation"]["running"]:
                await asyncio.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*requests), 3 * END_WITHIN_S)
        failed = [(status, detail) for status, detail in answers if status != 200]
        assert failed
        assert {status for status, _ in failed} == {503}
        assert all(detail for _, detail in failed)
        await watch
        await asyncio.to_thread(fragile_server.wait_ready)
        assert (await post(100))[0] == 200


async def test_a_task_without_its_adapter_is_a_501_and_the_others_work(
    fragile_server: Server,
) -> None:
    async with WebClient(fragile_server.url) as client:
        answer = await client.http.post("/api/generate/async", json=edit(task_type="white-balance"))
        assert answer.status_code == 501
        assert "white-balance" in answer.json()["detail"]
        _, result = await client.finish()
        assert result["debug_info"]["loaded_adapters"] == ["insertion", "removal"]


def shared_memory(processes: list[psutil.Process]) -> list[Path]:
    """Return the segments that belong to a Triton started by one of `processes`."""
    prefixes = tuple(leftovers.prefix(process.pid) for process in processes)
    return [path for path in SHARED_MEMORY.iterdir() if path.name.startswith(prefixes)]


def test_stopping_in_mid_job_leaves_no_process_and_no_shared_memory(tmp_path: Path) -> None:

    async def start_a_job(server: Server) -> None:
        async with WebClient(server.url) as client:
            await client.submit(long_edit())

    with running(tmp_path / "log") as server:
        asyncio.run(start_a_job(server))
        processes = server.tree()
        assert shared_memory(processes)
    assert server.process.returncode == 0
    assert alive(processes) == []
    assert shared_memory(processes) == []
