"""One frontend before several Tritons: work is shared, and one that dies takes its own along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from frontend.http.app import create_app
from tests.fakes.pictures import b64, png
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient, check_stream, edit
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from frontend.settings import Settings
    from tests.frontend.conftest import Serve


@pytest.fixture
async def tritons(triton: FakeTriton) -> AsyncIterator[list[FakeTriton]]:
    async with FakeTriton() as other:
        yield [triton, other]


@pytest.fixture
async def client(serve: Serve, tritons: list[FakeTriton]) -> AsyncIterator[WebClient]:
    """Of a frontend before two Tritons, each of which gets one job at a time."""
    url = ",".join(each.url for each in tritons)
    async with serve(triton_url=url, max_in_flight=1) as client:
        yield client


def jobs_of(triton: FakeTriton) -> list[str]:
    return list(triton.requests)


async def given(triton: FakeTriton, count: int) -> None:
    """Return once it has been given so many jobs."""
    await eventually(lambda: len(jobs_of(triton)) == count)


async def test_jobs_run_side_by_side(client: WebClient, tritons: list[FakeTriton]) -> None:
    async with tritons[0].engine, tritons[1].engine:
        ids = [await client.submit(edit(num_inference_steps=2)) for _ in range(4)]
        for each in tritons:
            await each.let_one()
            await given(each, 2)
    for task_id in ids:
        check_stream(await client.follow(task_id), 2)
    first, second = (jobs_of(each) for each in tritons)
    assert len(first) == len(second) == 2
    assert sorted(first + second) == sorted(ids)


async def test_a_cancel_goes_where_the_job_runs(
    client: WebClient, tritons: list[FakeTriton]
) -> None:
    for each in tritons:
        each.hold()
    ids = [await client.submit(edit(num_inference_steps=100)) for _ in range(2)]
    for task_id in ids:
        await client.wait_status(task_id, "processing")
    for task_id in reversed(ids):
        await client.cancel(task_id)
        assert (await client.follow(task_id))[-1]["status"] == "cancelled"
    assert [each.in_band_cancels for each in tritons] == [[ids[0]], [ids[1]]]
    assert [each.cut_streams for each in tritons] == [[], []]


async def test_the_jobs_of_one_that_dies_go_to_another_and_its_jobs_go_on(
    client: WebClient, tritons: list[FakeTriton]
) -> None:
    dying, staying = tritons
    for each in tritons:
        each.hold()
    ids = [await client.submit(edit(num_inference_steps=20)) for _ in range(3)]
    for task_id in ids[:2]:
        await client.wait_status(task_id, "processing")
    await dying.kill()
    async with asyncio.timeout(60):
        while not (await client.status(ids[0]))["restarts"]:
            await asyncio.sleep(0.02)
    staying.release()
    for task_id in ids:
        events = await client.follow(task_id)
        assert (events[-1]["status"], events[-1]["restarts"]) == ("done", task_id == ids[0])
        assert not any("Triton" in (event["loading_message"] or "") for event in events)
    # It was there before the one that had not begun.
    assert jobs_of(staying) == [ids[1], ids[0], ids[2]]
    assert (await client.http.get("/readyz")).status_code == 200
    generation = (await client.services())["generation"]
    assert (generation["status"], generation["tritons"], generation["tritons_ready"]) == (
        "healthy", 2, 1,
    )  # fmt: skip
    await dying.start()
    while (await client.services())["generation"]["tritons_ready"] < 2:
        await asyncio.sleep(0.02)


async def test_a_picture_s_masks_come_from_one_place_while_that_is_there(
    client: WebClient, tritons: list[FakeTriton]
) -> None:
    async def click(picture: str) -> None:
        body = {"image": picture, "points": [[1, 2]]}
        answer = await client.http.post("/api/smart-mask", json=body)
        assert answer.status_code == 200, answer.text

    # So many that each Triton is sure to get some: its address, with its port, decides.
    pictures = [b64(png((8 + more, 8))) for more in range(24)]
    for picture in pictures * 2:
        await click(picture)
    asked = [each.masks.requests for each in tritons]
    assert all(asked)
    # The first click of each picture sends it; the second finds it where the first was.
    assert sorted(len([1 for each in one if "IMAGE" in each]) for one in asked) == sorted(
        len(one) // 2 for one in asked
    )
    await tritons[0].kill()
    kept = len(tritons[1].masks.known)
    while (await client.services())["segmentation"]["cache"]["images"] != kept:
        await asyncio.sleep(0.02)
    for picture in pictures:
        await click(picture)


async def test_frontends_agree_on_a_picture_s_triton_whatever_the_order_of_their_lists(
    serve: Serve, tritons: list[FakeTriton], tmp_path: Path
) -> None:
    urls = [each.url for each in tritons]
    folder = tmp_path / "shared"
    async with (
        serve(triton_url=",".join(urls), state_folder=folder) as here,
        serve(triton_url=",".join(reversed(urls)), state_folder=folder) as there,
    ):
        for more in range(8):
            for client in (here, there):
                body = {"image": b64(png((8 + more, 8))), "points": [[1, 2]]}
                answer = await client.http.post("/api/smart-mask", json=body)
                assert answer.status_code == 200, answer.text
    # Each frontend has sent each picture once, and the second one to where it was known.
    assert sum(len(each.masks.requests) for each in tritons) == 16
    assert sum(len(each.masks.known) for each in tritons) == 8


async def test_a_job_that_a_lost_triton_never_took_goes_to_another(
    serve: Serve, tritons: list[FakeTriton]
) -> None:
    url = ",".join(each.url for each in tritons)
    async with serve(triton_url=url, max_in_flight=1, ping_interval_s=30) as client:
        await tritons[0].kill()  # and nobody has noticed
        ids = [await client.submit(edit(num_inference_steps=2)) for _ in range(2)]
        for task_id in ids:
            check_stream(await client.follow(task_id), 2)
    assert sorted(jobs_of(tritons[1])) == sorted(ids)


async def test_a_busy_triton_leaves_a_job_to_an_idle_one_of_another_process(
    settings: Settings, tritons: list[FakeTriton]
) -> None:
    for each in tritons:
        each.hold()
    # As on one machine each has a port: with the same one, either would take what the other holds,
    # after a while without an announcement, for its own of before a restart.
    own = [
        settings.model_copy(update={"triton_url": each.url, "port": settings.port + number})
        for number, each in enumerate(tritons)
    ]
    async with (
        listening(create_app(own[0])) as here,
        listening(create_app(own[1])),
        WebClient(here) as client,
    ):
        while (await client.services())["generation"]["tritons"] < 2:
            await asyncio.sleep(0.02)
        ids = [await client.submit(edit(num_inference_steps=2)) for _ in range(2)]
        for each in tritons:
            await given(each, 1)
        ids.append(await client.submit(edit(num_inference_steps=2)))
        await eventually(lambda: sum(len(jobs_of(each)) for each in tritons) == 3)
        for each in tritons:
            each.release()
        for task_id in ids:
            check_stream(await client.follow(task_id), 2)
