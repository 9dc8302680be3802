"""Frontends that share a store: a picture that one has answered for, any other one has.

Those that only serve ask the Tritons that dispatchers announce, and all the same one for a picture.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.durability.frontends import PATIENCE_S, Frontend
from tests.fakes.bad_masks import mask_request
from tests.fakes.mask_model import MASK
from tests.fakes.pictures import b64, png
from tests.fakes.web_client import WebClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.durability.frontends import Cluster
    from tests.fakes.postgres import PostgresServer
    from tests.fakes.triton_server import FakeTriton


@pytest.fixture(params=["sqlite", "postgres"])
async def frontends(
    tmp_path: Path, triton: FakeTriton, request: pytest.FixtureRequest
) -> AsyncIterator[list[Frontend]]:
    """Two frontends on one new store; none is started."""
    settings: dict[str, Any] = {"STATE_FOLDER": str(tmp_path / "state")}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        settings = {"STORE_URL": server.new_database()}
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(Frontend(tmp_path / name, triton.url, **settings))
    async with contextlib.AsyncExitStack() as stack:
        for each in made:
            stack.push_async_callback(each.stop)
        yield made


async def asked(frontend: Frontend, address: str = "127.0.0.1", **changes: Any) -> httpx.Response:
    """Ask for a mask, as the client of an address."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
        return await client.post(f"{frontend.url}/api/smart-mask", json=mask_request(**changes))


async def answered(frontend: Frontend, **changes: Any) -> str:
    """Ask for a mask until the store is there, and return the picture's id."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await asked(frontend, **changes)).status_code == 503:
            await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    assert base64.b64decode(answer.json()["mask_base64"]) == MASK
    image_id: str = answer.json()["image_id"]
    return image_id


async def test_a_picture_outlives_the_frontend_that_took_it(
    frontends: list[Frontend], triton: FakeTriton
) -> None:
    dying, living = frontends
    await dying.start()
    known: dict[str, Any] = {"image": None, "image_id": await answered(dying)}
    await dying.kill()
    triton.masks.known.clear()
    await living.start()
    stranger = await asked(living, "127.0.0.2", **known)
    assert stranger.status_code == 404
    assert stranger.json() == {"detail": f"Image ID not found or expired: {known['image_id']}"}
    assert await answered(living, **known) == known["image_id"]
    triton.masks.known.clear()
    await dying.start()
    assert await answered(dying, **known) == known["image_id"]
    assert ["IMAGE" in inputs for inputs in triton.masks.requests] == [True] * 3


@pytest.mark.parametrize("frontends", ["postgres"], indirect=True)
async def test_a_request_is_cancelled_at_another_frontend(
    frontends: list[Frontend], triton: FakeTriton
) -> None:
    for each in frontends:
        await each.start()
    here, there = frontends
    triton.masks.behaviour.delay_s = PATIENCE_S
    asking = asyncio.create_task(asked(here, request_id="click"))
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as client:
        while not triton.masks.live:
            await asyncio.sleep(0.02)
        while not asking.done():  # a hint may be lost
            await client.post(f"{there.url}/api/smart-mask/cancel/click")
            await asyncio.wait([asking], timeout=1)
    answer = await asking
    assert answer.json() == {"detail": "Segmentation request click was cancelled"}
    assert len(triton.masks.cancelled) == 1


@pytest.mark.parametrize("frontends", ["postgres"], indirect=True)
async def test_without_a_database_only_what_a_frontend_has_is_answered(
    frontends: list[Frontend], triton: FakeTriton, postgres: PostgresServer
) -> None:
    here, there = frontends
    await here.start()
    await there.start()
    known: dict[str, Any] = {"image": None, "image_id": await answered(here)}
    await asyncio.to_thread(postgres.kill)
    assert (await asked(here, **known)).status_code == 200
    unanswered = await asked(there, **known)
    assert unanswered.status_code == 503
    assert unanswered.json()["detail"].startswith("The job store does not answer: ")
    assert "Retry-After" in unanswered.headers
    await asyncio.to_thread(postgres.start)
    assert await answered(there, **known) == known["image_id"]


# --- only serving, and no address of a Triton ---

over_both = pytest.mark.parametrize("cluster", ["sqlite", "postgres"], indirect=True)
# So many that each Triton is sure to get some: its address, with its port, decides.
PICTURES = [b64(png((8 + more, 8))) for more in range(24)]


async def asked_at(tritons: Sequence[FakeTriton], serving: Frontend, picture: str) -> int:
    """Ask for a mask, and return the number of the one Triton that was asked."""
    before = [len(each.masks.requests) for each in tritons]
    answer = await asked(serving, image=picture)
    assert answer.status_code == 200, answer.text
    [number] = [
        number for number, each in enumerate(tritons) if len(each.masks.requests) > before[number]
    ]
    return number


async def tritons_are(cluster: Cluster, count: int) -> None:
    """Return once each process that serves has so many Tritons, and all make masks."""
    for serving in cluster.serving:
        async with asyncio.timeout(PATIENCE_S), WebClient(serving.url) as client:
            while True:
                found = (await client.services())["segmentation"]
                if (found.get("tritons"), found.get("tritons_ready")) == (count, count):
                    break
                await asyncio.sleep(0.05)


@over_both
async def test_a_picture_goes_to_the_same_triton_from_all_who_serve(cluster: Cluster) -> None:
    tritons, (here, there) = cluster.tritons, cluster.serving
    await tritons_are(cluster, 2)
    homes = [await asked_at(tritons, here, picture) for picture in PICTURES]
    assert set(homes) == {0, 1}
    assert [await asked_at(tritons, there, picture) for picture in PICTURES] == homes
    of = [[each for each, home in zip(PICTURES, homes, strict=True) if home == i] for i in range(2)]
    # One that goes is missed at once.
    await cluster.dispatching[0].stop()
    await tritons_are(cluster, 1)
    for serving in cluster.serving:
        assert {await asked_at(tritons, serving, picture) for picture in of[0]} == {1}
    await cluster.dispatching[0].start()
    await tritons_are(cluster, 2)
    for serving in cluster.serving:
        assert {await asked_at(tritons, serving, picture) for picture in of[0]} == {0}
    # One that dies is missed after some seconds.
    await cluster.dispatching[1].kill()
    await tritons_are(cluster, 1)
    for serving in cluster.serving:
        assert {await asked_at(tritons, serving, picture) for picture in of[1]} == {0}


@over_both
async def test_a_cancel_reaches_the_triton_that_has_the_request(cluster: Cluster) -> None:
    await tritons_are(cluster, 2)
    here, there = cluster.serving
    homes = [await asked_at(cluster.tritons, here, picture) for picture in PICTURES]
    for each in cluster.tritons:
        each.masks.behaviour.delay_s = PATIENCE_S
    asking = [
        asyncio.create_task(
            asked(here, image=PICTURES[homes.index(number)], request_id=f"click{number}")
        )
        for number in range(2)
    ]
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as client:
        while not all(each.masks.live for each in cluster.tritons):
            await asyncio.sleep(0.02)
        while not asking[0].done():  # a hint may be lost
            await client.post(f"{there.url}/api/smart-mask/cancel/click0")
            await asyncio.wait([asking[0]], timeout=1)
    cancelled = (await asking[0]).json()
    assert cancelled == {"detail": "Segmentation request click0 was cancelled"}
    assert [len(each.masks.cancelled) for each in cluster.tritons] == [1, 0]
    cluster.tritons[1].masks.release()
    assert (await asking[1]).status_code == 200
    assert [each.masks.cut for each in cluster.tritons] == [[], []]


@pytest.mark.parametrize("cluster", ["postgres"], indirect=True)
async def test_without_a_database_the_tritons_are_still_known(
    cluster: Cluster, postgres: PostgresServer
) -> None:
    await tritons_are(cluster, 2)
    here = cluster.serving[0]
    known = [await answered(here, image=picture) for picture in PICTURES]
    await asyncio.to_thread(postgres.kill)
    for image_id in known:
        answer = await asked(here, image=None, image_id=image_id)
        assert answer.status_code == 200, answer.text
    assert all(each.masks.requests for each in cluster.tritons)
    await asyncio.to_thread(postgres.start)
    for serving in cluster.serving:
        for image_id in known:
            assert await answered(serving, image=None, image_id=image_id) == image_id
