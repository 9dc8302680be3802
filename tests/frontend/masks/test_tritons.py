"""The Tritons that make masks: those of the settings, and those that dispatchers announce."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from frontend.domain.tritons import TritonState
from frontend.errors import TritonDownError
from frontend.http.app import create_app
from frontend.jobs.board import Board
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.transactions import Bounds
from frontend.masks.rendezvous import chosen
from frontend.masks.tritons import MaskTritons
from tests.fakes.bad_masks import mask_request
from tests.fakes.pictures import b64, png
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from frontend.masks.service import MaskService
    from frontend.settings import Settings

NOBODY = "No process that runs edits has reported"
PICTURES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(24)]


@pytest.fixture
async def others(triton: FakeTriton) -> AsyncIterator[list[FakeTriton]]:
    async with FakeTriton() as other:
        yield [triton, other]


class Bench:
    """What is announced, and the Tritons that are asked then.

    Args:
        settings: of a process that only serves.
        store: where dispatchers announce their Tritons.
    """

    def __init__(self, settings: Settings, store: SqlStore) -> None:
        self.store = store
        self._board = Board(store, 1, 1)
        self.tritons = MaskTritons(settings, self._board)

    async def announce(self, worker: str, *urls: str, **fields: Any) -> None:
        states = [TritonState(url=url, places=1, **fields) for url in urls]
        await self.store.announce(worker, states)
        await self.look()

    async def depart(self, worker: str) -> None:
        await self.store.depart(worker)
        await self.look()

    async def look(self) -> None:
        await self._board.look()
        await self.tritons.ping()

    def refusal(self) -> str:
        """Return why no mask can be made."""
        with pytest.raises(TritonDownError) as refused:
            self.tritons.require()
        return refused.value.detail


@pytest.fixture
async def bench(settings: Settings, tmp_path: Path) -> AsyncIterator[Bench]:
    serving = settings.model_copy(update={"roles": "serve", "triton_url": ""})
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 1), 60)
    bench = Bench(serving, store)
    async with bench.tritons:
        yield bench
    await store.close()


async def test_those_that_are_announced_are_asked(bench: Bench, others: list[FakeTriton]) -> None:
    first, second = (each.url for each in others)
    assert (len(bench.tritons), bench.refusal()) == (0, NOBODY)
    await bench.announce("a", first)
    await bench.announce("b", second)
    assert (len(bench.tritons), bench.tritons.ready) == (2, 2)
    for image_id in PICTURES:
        with bench.tritons.having(image_id) as watch:
            assert watch.client.url == chosen([first, second], image_id)
    await bench.depart("a")
    assert (len(bench.tritons), bench.tritons.ready) == (1, 1)
    with bench.tritons.having(PICTURES[0]) as watch:
        assert watch.client.url == second
    await bench.depart("b")
    assert (len(bench.tritons), bench.refusal()) == (0, NOBODY)


async def test_one_that_two_announce_is_watched_once(bench: Bench, triton: FakeTriton) -> None:
    # As while a dispatcher that was killed is there again.
    await bench.announce("former", triton.url)
    await bench.announce("present", triton.url)
    assert len(bench.tritons) == 1
    with bench.tritons.having(PICTURES[0]) as watch:
        await bench.depart("former")
        assert (len(bench.tritons), bench.tritons.ready) == (1, 1)
        with bench.tritons.having(PICTURES[0]) as same:
            assert same is watch


async def test_one_that_has_gone_keeps_its_requests_and_gets_no_more(
    bench: Bench, others: list[FakeTriton]
) -> None:
    first, second = (each.url for each in others)
    await bench.announce("a", first)
    await bench.announce("b", second)
    image_id = next(each for each in PICTURES if chosen([first, second], each) == first)
    with bench.tritons.having(image_id) as watch:
        await bench.depart("a")
        with bench.tritons.having(image_id) as other:
            assert other.client.url == second
        # It can be told to cancel, and would be missed if it died.
        await watch.client.cancel_mask("")
        await others[0].kill()
        await bench.look()
        assert watch.requests_lost
    await bench.look()
    assert [each.watch for each in bench.tritons._watched.values()] == [other]
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await watch.client.cancel_mask("")


async def test_one_that_comes_back_while_it_has_a_request_is_the_same(
    bench: Bench, triton: FakeTriton
) -> None:
    await bench.announce("a", triton.url)
    with bench.tritons.having(PICTURES[0]) as watch:
        await bench.depart("a")
        assert bench.refusal() == NOBODY
        await bench.announce("a", triton.url)
        with bench.tritons.having(PICTURES[0]) as same:
            assert same is watch


async def test_one_without_smart_mask_makes_no_masks(
    bench: Bench, others: list[FakeTriton]
) -> None:
    with_masks, without = others
    without.masks.behaviour.dead = True
    await bench.announce("a", without.url)
    assert "has died" in bench.refusal()
    await bench.announce("b", with_masks.url)
    assert (len(bench.tritons), bench.tritons.ready) == (2, 1)
    for image_id in PICTURES:
        with bench.tritons.having(image_id) as watch:
            assert watch.client.url == with_masks.url


async def test_an_outage_says_what_is_true(bench: Bench, triton: FakeTriton) -> None:
    await triton.kill()
    await bench.announce("a", triton.url)
    assert bench.refusal() == "Triton is not available"
    # What a Triton loads is told by its dispatcher, which alone can read that.
    await bench.announce("a", triton.url, reason="x", loading="2 of 58 GB")
    assert bench.refusal() == "Triton is loading the models: 2 of 58 GB"
    await triton.start()
    await bench.announce("a", triton.url, reason="x", loading="2 of 58 GB")
    async with asyncio.timeout(30):
        while not bench.tritons.ready:
            await bench.look()
    assert bench.tritons.require()


async def test_processes_agree_on_a_triton_that_they_reach_at_different_addresses(
    settings: Settings, others: list[FakeTriton], tmp_path: Path
) -> None:
    known = ["one:8001", "two:8001"]
    urls = [each.url for each in others]
    own = settings.model_copy(
        update={"triton_url": ",".join(urls), "advertised_url": ",".join(known)}
    )
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 1), 60)
    async with MaskTritons(own, Board(store, 1, 1)) as tritons:
        await eventually(lambda: tritons.ready == 2)
        for image_id in PICTURES:
            with tritons.having(image_id) as watch:
                assert watch.client.url == urls[known.index(chosen(known, image_id))]
    await store.close()


# --- through a frontend that only serves ---


@pytest.fixture
def serving(settings: Settings) -> Settings:
    """Provide settings of a process that only serves; one request at a time at each Triton."""
    changes = {"roles": "serve", "triton_url": "", "max_masks_in_flight": 1}
    return settings.model_copy(update=changes)


def dispatching(settings: Settings, triton: FakeTriton, number: int, **changes: Any) -> Settings:
    """Return the settings of a dispatcher."""
    own = {"roles": "dispatch", "triton_url": triton.url, "port": settings.port + number}
    return settings.model_copy(update=own | changes)


async def test_before_a_dispatcher_is_there_all_pages_say_so(serving: Settings) -> None:
    async with listening(create_app(serving)) as url, WebClient(url) as client:
        for path in ("/livez", "/readyz/store", "/docs"):
            assert (await client.http.get(path)).status_code == 200
        ready = await client.http.get("/readyz")
        asked = await client.http.post("/api/smart-mask", json=mask_request())
        for answer in (ready, asked):
            assert (answer.status_code, answer.json()) == (503, {"detail": NOBODY})
        services = await client.services()
        assert services["segmentation"] == {"status": "unhealthy", "reason": NOBODY}


async def test_another_address_is_announced_than_the_dispatcher_uses(
    serving: Settings, triton: FakeTriton, settings: Settings
) -> None:
    # By a name that the dispatcher has no need to know.
    others_use = triton.url.replace("127.0.0.1", "localhost")
    own = dispatching(settings, triton, 1, advertised_url=others_use)
    app = create_app(serving)
    async with (
        listening(create_app(own)),
        listening(app) as url,
        WebClient(url) as client,
        asyncio.timeout(30),
    ):
        while (await client.http.get("/readyz")).status_code == 503:
            await asyncio.sleep(0.02)
        answer = await client.http.post("/api/smart-mask", json=mask_request())
        assert answer.status_code == 200, answer.text
        assert [state.url for state in app.state.services.board.tritons] == [others_use]


async def test_as_many_requests_run_as_there_are_tritons(
    serving: Settings, others: list[FakeTriton], settings: Settings
) -> None:
    for each in others:
        each.masks.behaviour.delay_s = 60
    app = create_app(serving)
    own = [dispatching(settings, each, number + 1) for number, each in enumerate(others)]
    async with listening(app) as url, WebClient(url) as client, listening(create_app(own[0])):

        async def ask(image: str) -> int:
            body = mask_request(image=image)
            return (await client.http.post("/api/smart-mask", json=body)).status_code

        while (await client.http.get("/readyz")).status_code == 503:
            await asyncio.sleep(0.02)
        # So many that each Triton is sure to get some: its address, with its port, decides.
        masks = [asyncio.create_task(ask(b64(png((8 + more, 8))))) for more in range(24)]
        service = app.state.services.masks
        await eventually(lambda: (service.running, service.waiting) == (1, 23))
        # So that no request of theirs starts the next one.
        await eventually(lambda: all(each.ready for each in service._live.values()))
        async with listening(create_app(own[1])):
            await eventually(lambda: (service.running, service.waiting) == (2, 22))
            for each in others:
                each.masks.release()
            assert await asyncio.gather(*masks) == [200] * 24
            assert all(each.masks.requests for each in others)
            assert max(each.masks.most_at_once for each in others) <= 2
        # The dispatcher has gone, and its Triton still answers.
        await eventually(lambda: service.tritons == 1)


async def test_as_many_requests_are_let_in_as_there_are_tritons(
    serving: Settings, others: list[FakeTriton], settings: Settings
) -> None:
    bounds = {"max_masks_waiting": 1, "owner_fraction": 1}
    app = create_app(serving.model_copy(update=bounds))
    own = [dispatching(settings, each, number + 1) for number, each in enumerate(others)]
    for each in others:
        each.masks.behaviour.delay_s = 60
    async with listening(app) as url, WebClient(url) as client, listening(create_app(own[0])):
        service = app.state.services.masks
        await eventually(lambda: service._tritons.ready)

        async def ask() -> int:
            return (await client.http.post("/api/smart-mask", json=mask_request())).status_code

        masks = [asyncio.create_task(ask()) for _ in range(2)]
        await eventually(lambda: service._places.sum == 2)
        assert await ask() == 503
        async with listening(create_app(own[1])):
            await eventually(lambda: service._places._total == 3)
            masks.append(asyncio.create_task(ask()))
            await eventually(lambda: service._places.sum == 3)
            for each in others:
                each.masks.release()
            assert await asyncio.gather(*masks) == [200] * 3


@contextlib.asynccontextmanager
async def held_masks(
    serving: Settings, triton: FakeTriton
) -> AsyncIterator[tuple[WebClient, MaskService]]:
    """Serve while the Triton answers no mask until it is released."""
    triton.masks.behaviour.delay_s = 60
    app = create_app(serving)
    async with listening(app) as url, WebClient(url) as client:
        yield client, app.state.services.masks


async def test_a_request_that_runs_while_its_dispatcher_goes_is_answered(
    serving: Settings, triton: FakeTriton, settings: Settings
) -> None:
    async with held_masks(serving, triton) as (client, service):
        async with listening(create_app(dispatching(settings, triton, 1))):
            await eventually(lambda: service._tritons.ready)
            answering = asyncio.create_task(
                client.http.post("/api/smart-mask", json=mask_request(request_id="a"))
            )
            await eventually(lambda: triton.masks.live)
        await eventually(lambda: not service.tritons)
        refused = await client.http.post("/api/smart-mask", json=mask_request())
        assert refused.json() == {"detail": NOBODY}
        triton.masks.release()
        assert (await answering).status_code == 200
        await eventually(lambda: not service._tritons._watched)
    assert triton.masks.cut == []


async def test_what_waits_for_a_triton_that_has_gone_is_refused(
    serving: Settings, triton: FakeTriton, settings: Settings
) -> None:
    async with held_masks(serving, triton) as (client, service):
        async with listening(create_app(dispatching(settings, triton, 1))):
            await eventually(lambda: service._tritons.ready)
            answering = [
                asyncio.create_task(client.http.post("/api/smart-mask", json=mask_request()))
                for _ in range(3)
            ]
            await eventually(lambda: service.waiting == 2)
        await triton.kill()
        for each in answering:
            assert (await each).status_code == 503
    assert not service._live
