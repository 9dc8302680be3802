"""Two processes that only serve and two that only dispatch: one queue, whoever dies or goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.durability.frontends import PATIENCE_S, Cluster, Survivor
from tests.durability.logs import check_log
from tests.fakes.triton_server import task_of
from tests.fakes.web_client import WebClient, edit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import Json

STEPS = 6

over_both = pytest.mark.parametrize("cluster", ["sqlite", "postgres"], indirect=True)


async def generation(url: str) -> Json:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        body: Json = (await client.get("/api/system/health")).json()
    part: Json = body["services"]["generation"]
    return part


async def test_who_serves_knows_of_each_triton_from_who_dispatches(cluster: Cluster) -> None:
    for serving in cluster.serving:
        async with asyncio.timeout(PATIENCE_S):
            while (found := await generation(serving.url)).get("tritons_ready") != 2:
                await asyncio.sleep(0.05)
        assert (found["status"], found["bundle"], found["tritons"]) == ("healthy", "fake", 2)
    # One that goes is missed at once, one that dies after some seconds.
    await cluster.dispatching[0].stop()
    for serving in cluster.serving:
        async with asyncio.timeout(PATIENCE_S):
            while (await generation(serving.url))["tritons"] != 1:
                await asyncio.sleep(0.05)
    await cluster.dispatching[1].kill()
    serving = cluster.serving[0]
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(base_url=serving.url, timeout=PATIENCE_S) as client,
    ):
        while (ready := await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.05)
        assert ready.json()["detail"] == "No process that runs edits has reported"
        assert (await client.post("/api/generate", json=edit())).status_code == 503
        await cluster.dispatching[1].start()
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_who_dispatches_serves_no_client(cluster: Cluster) -> None:
    url = cluster.dispatching[0].url
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        for path, status in (("/livez", 200), ("/readyz", 200), ("/api/generate", 404), ("/", 404)):
            assert (await client.get(path)).status_code == status
        await cluster.tritons[0].kill()
        async with asyncio.timeout(PATIENCE_S):
            while (ready := await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.05)
        assert ready.json()["detail"] == "Triton is not available"
        assert (await client.get("/livez")).status_code == 200


@over_both
async def test_every_replica_tells_the_same_of_every_job(cluster: Cluster) -> None:
    for triton in cluster.tritons:
        triton.hold()
    here, there = (serving.url for serving in cluster.serving)
    ids = [await Survivor(url).submit(num_inference_steps=STEPS) for url in (here, there) * 3]
    await cluster.started(2)
    running = {task_of(start) for start in cluster.starts}
    waiting = [task_id for task_id in ids if task_id not in running]
    async with WebClient(here) as one, WebClient(there) as other:
        for client in (one, other):
            async with asyncio.timeout(PATIENCE_S):
                while [(await client.status(task_id))["queue_position"] for task_id in waiting] != [
                    1,
                    2,
                    3,
                    4,
                ]:
                    await asyncio.sleep(0.02)
        # Cancelled where it was not submitted.
        for task_id in (waiting[0], min(running)):
            await other.cancel(task_id)
            assert (await one.follow(task_id))[-1]["status"] == "cancelled"
    for triton in cluster.tritons:
        triton.release()
    for task_id in set(ids) - {waiting[0], min(running)}:
        logs = [await Survivor(url).follow(task_id) for url in (here, there)]
        assert logs[0] == logs[1]
        check_log(logs[0], "done")
        for url in (here, there):
            assert (await Survivor(url).result(task_id))["parameters_used"] == {"seed": 7}
    assert len(cluster.starts) == len(set(cluster.starts)) == 5


async def test_a_killed_dispatcher_that_comes_back_goes_on_at_once(cluster: Cluster) -> None:
    for triton in cluster.tritons:
        triton.hold()
    client = Survivor(cluster.serving[0].url)
    task_id = await client.submit(num_inference_steps=STEPS)
    following = asyncio.create_task(client.follow(task_id))
    async with WebClient(cluster.serving[1].url) as other:
        await other.wait_status(task_id, "processing")
    dying = next(i for i, each in enumerate(cluster.tritons) if each.starts)
    await cluster.dispatching[dying].kill()
    await cluster.dispatching[dying].start()
    await cluster.started(2)
    for triton in cluster.tritons:
        triton.release()
    events = await following
    check_log(events, "done")
    assert events[-1]["restarts"] == 1
    assert sorted(cluster.starts) == [f"{task_id}.1", f"{task_id}.2"]


async def test_a_rolling_restart_of_everything_loses_and_repeats_nothing(
    tmp_path: Path, tritons: list[FakeTriton]
) -> None:
    cluster = Cluster(tmp_path, tritons, DRAIN_S="60")
    for triton in tritons:
        triton.hold()
    try:
        await cluster.start()
        here, there = (serving.url for serving in cluster.serving)
        clients = [Survivor(url) for url in (here, there) * 3]
        ids = [await client.submit(num_inference_steps=STEPS) for client in clients]
        following = [
            asyncio.create_task(client.follow(task_id))
            for client, task_id in zip(clients, ids, strict=True)
        ]
        await cluster.started(2)
        for serving in cluster.serving:
            await serving.stop()
            await serving.start()
        for dispatching, triton in zip(cluster.dispatching, tritons, strict=True):
            async with asyncio.timeout(PATIENCE_S):
                # Of one that was just started a server may not have heard yet.
                while not triton.live or (await generation(here)).get("tritons_ready") != 2:
                    await asyncio.sleep(0.02)
            given = len(triton.starts)
            stopping = asyncio.create_task(dispatching.stop())
            async with asyncio.timeout(PATIENCE_S):
                while (await generation(here)).get("tritons_ready") != 1:
                    await asyncio.sleep(0.02)
            assert not stopping.done()
            # Its job ends, and it takes no other.
            triton.release()
            await stopping
            assert len(triton.starts) == given
            triton.hold()
            await dispatching.start()
        for triton in tritons:
            triton.release()
        for events in await asyncio.gather(*following):
            check_log(events, "done")
            assert events[-1]["restarts"] == 0
        assert sorted(cluster.starts) == sorted(f"{task_id}.1" for task_id in ids)
    finally:
        await cluster.stop()


async def test_what_does_not_end_in_time_begins_anew_uncounted(
    tmp_path: Path, tritons: list[FakeTriton]
) -> None:
    for triton in tritons:
        triton.hold()
    cluster = Cluster(tmp_path, tritons, DRAIN_S="0.2")
    try:
        await cluster.start()
        client = Survivor(cluster.serving[0].url)
        task_id = await client.submit(num_inference_steps=STEPS, retry=False)
        await cluster.started(1)
        stopped = next(i for i, each in enumerate(tritons) if each.starts)
        await cluster.dispatching[stopped].stop()
        await cluster.started(2)  # at the other one
        tritons[1 - stopped].release()
        check_log(await client.follow(task_id), "done")
        assert sorted(cluster.starts) == [f"{task_id}.1", f"{task_id}.2"]
        assert tritons[stopped].cut_streams == []
    finally:
        await cluster.stop()
