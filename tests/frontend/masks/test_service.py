"""The service over the stand-in for Triton, without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from frontend.domain.masks import MaskPrompts, MaskResult, Picture
from frontend.errors import (
    BackendError,
    ImageNotFoundError,
    InvalidInputError,
    MaskCancelledError,
    ServingError,
    StoreAwayError,
    TooMuchError,
    TritonDownError,
    UnavailableError,
)
from frontend.jobs.board import Board
from frontend.jobs.sql_pictures import SqlPictures
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import rows
from frontend.jobs.transactions import Bounds
from frontend.masks import early_cancels
from frontend.masks.image_store import ImageStore
from frontend.masks.pictures import Pictures
from frontend.masks.service import MaskService
from frontend.masks.tritons import MaskTritons
from tests.fakes.mask_model import MASK, NOTHING_FOUND
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from frontend.domain.models import MaskModelState
    from frontend.pictures.workers import ImageWorkers
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch
    from tests.fakes.mask_model import FakeMaskModel
    from tests.fakes.triton_server import FakeTriton

ME = "address:127.0.0.1"
CLICK = MaskPrompts(points=((1.0, 2.0),))


def picture(name: str = "a") -> Picture:
    data = name.encode()
    digest = hashlib.sha256(data)
    return Picture(data, digest.hexdigest(), digest.digest())


def picture_id_at_model() -> str:
    """Return the name by which a model knows `picture()`."""
    return hashlib.sha256(b"shown " + picture().data).hexdigest()


class Images:
    """Stands for the processes that read pictures; what is shown is every byte of the file."""

    @contextlib.asynccontextmanager
    async def shown(
        self, owner: str, held: Picture, *, forgotten: bool = False
    ) -> AsyncIterator[bytes]:
        yield b"shown " + held.data

    @contextlib.asynccontextmanager
    async def rough_mask(self, owner: str, data: bytes) -> AsyncIterator[bytes]:
        yield b"mask of " + data


class Bench:
    """A service and what it stands between."""

    def __init__(
        self,
        masks: MaskService,
        cache: ImageStore,
        store: SqlPictures,
        driver: SqliteDriver,
        triton: FakeTriton,
    ) -> None:
        self.masks = masks
        self.cache = cache
        self.store = store
        self.driver = driver
        self.triton = triton

    @property
    def watch(self) -> TritonWatch[MaskModelState]:
        [watched] = self.masks._tritons._watched.values()
        return watched.watch

    @property
    def model(self) -> FakeMaskModel:
        return self.triton.masks

    @property
    def sent(self) -> list[str]:
        """What the model was asked for by, in order: IMAGE or IMAGE_ID."""
        return [next(iter(inputs)) for inputs in self.model.requests]

    async def find(
        self,
        image: Picture | str | None = None,
        request_id: str | None = None,
        owner: str = ME,
    ) -> MaskResult:
        with self.masks.admitted(owner, request_id) as ticket:
            return await self.masks.find(ticket, CLICK, image or picture())

    def finding(
        self,
        image: Picture | str | None = None,
        request_id: str | None = None,
        owner: str = ME,
    ) -> asyncio.Task[MaskResult]:
        return asyncio.create_task(self.find(image, request_id, owner))

    async def abandon(self) -> None:
        """Ask for a mask, and leave once the model is at it."""
        finding = self.finding()
        await eventually(lambda: self.model.live)
        finding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finding

    async def cancel(self, request_id: str) -> None:
        await self.masks.cancel(ME, request_id)()

    @contextlib.asynccontextmanager
    async def another_process(self) -> AsyncIterator[Bench]:
        """Provide a bench of the same file and Triton, with a cache of its own."""
        cache = ImageStore(10**6, ttl_s=60)
        driver = SqliteDriver(self.driver._path)
        masks = MaskService(
            self.masks._settings,
            cache,
            Pictures(cache, self.store),
            SqlStore(driver, Bounds(1, 1), 60),
            self.masks._tritons,
            self.masks._images,
        )
        yield Bench(masks, cache, self.store, driver, self.triton)
        await driver.close()

    async def parts(self) -> int:
        """Return how many parts of pictures the store has."""
        return len(await self.driver.read(rows("parts_of_pictures")))

    async def nothing_kept(self) -> bool:
        """Return once no part of a picture is left, nor a picture."""
        async with asyncio.timeout(30):
            while await self.parts():
                await asyncio.sleep(0.01)
        return not await self.store.use(ME, picture().image_id)

    async def used_at(self, image_id: str) -> float:
        """Return when the store last noted a use of a picture."""
        [found] = await self.driver.read(rows("used_at", image_id))
        return float(found["used_at"])

    def lose_store(self, patch: pytest.MonkeyPatch) -> None:
        """Let nobody reach the store until the patch is undone."""

        def away(*_: object) -> None:
            raise StoreAwayError("The job store does not answer: it is away")

        for name in ("read", "write", "write_part"):
            patch.setattr(self.driver, name, away)


@pytest.fixture
def changes() -> dict[str, Any]:
    """Provide what `bench` changes in the settings; see `with_settings`."""
    return {}


def with_settings(**changes: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("changes", [changes], ids=[""])


@pytest.fixture
async def bench(
    triton: FakeTriton,
    settings: Settings,
    tmp_path: Path,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Bench]:
    # As long as a test may take between a cancel and its request.
    monkeypatch.setattr(early_cancels, "PATIENCE_S", 60.0)
    settings = settings.model_copy(update=changes)
    cache = ImageStore(10**6, ttl_s=60)
    driver = SqliteDriver(tmp_path / "jobs.db")
    driver._texts["parts_of_pictures"] = "SELECT part FROM picture_parts"
    driver._texts["used_at"] = "SELECT used_at FROM pictures WHERE image_id = $1"
    store = SqlPictures(driver, 10**7, ttl_s=60)
    jobs = SqlStore(driver, Bounds(10**7, 1), 60)
    images = cast("ImageWorkers", Images())
    async with (
        MaskTritons(settings, Board(jobs, 1, 1)) as tritons,
        Pictures(cache, store) as pictures,
        MaskService(settings, cache, pictures, jobs, tritons, images) as masks,
    ):
        made = Bench(masks, cache, store, driver, triton)
        await eventually(lambda: made.watch.state)
        yield made
        assert (masks.waiting, masks.running) == (0, 0)
    await driver.close()
    await eventually(lambda: triton.masks.live == 0)


# --- the picture is sent once ---


async def test_a_new_picture_is_sent_and_kept(bench: Bench) -> None:
    found = await bench.find()
    assert (found.mask, found.cached, found.score) == (MASK, False, 0.75)
    assert found.image_id == picture().image_id
    assert bench.sent == ["IMAGE"]
    assert bench.cache.get(ME, found.image_id) == picture()


async def test_a_known_picture_is_named(bench: Bench) -> None:
    first = await bench.find()
    for again in (picture(), first.image_id):
        assert (await bench.find(again)).cached
    assert bench.sent == ["IMAGE", "IMAGE_ID", "IMAGE_ID"]


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_picture_that_the_model_forgot_is_sent_again(bench: Bench, by_id: bool) -> None:
    first = await bench.find()
    bench.model.known.clear()
    again = await bench.find(first.image_id if by_id else None)
    assert (again.image_id, again.cached) == (first.image_id, False)
    assert bench.sent == ["IMAGE", "IMAGE_ID", "IMAGE"]


async def test_a_picture_of_its_owner_that_only_the_model_has_is_found(bench: Bench) -> None:
    first = await bench.find()
    bench.cache.put(ME, Picture(bytes(10**6 - 1024), "larger", b""))
    assert bench.cache.get(ME, first.image_id) is None
    assert (await bench.find(first.image_id)).cached
    assert bench.sent == ["IMAGE", "IMAGE_ID"]


@pytest.mark.parametrize("known_by", ["another owner", "the model"])
async def test_nobody_learns_that_another_has_sent_a_picture(bench: Bench, known_by: str) -> None:
    if known_by == "another owner":
        await bench.find()
    else:
        bench.model.known |= {picture().image_id, picture_id_at_model()}
    asked = len(bench.sent)
    for image_id in (picture().image_id, picture_id_at_model()):
        with pytest.raises(ImageNotFoundError):
            await bench.find(image_id, owner="you")
    assert bench.sent[asked:] == []
    # Whoever sends it gets the mask, as if it were the first.
    assert not (await bench.find(owner="you")).cached
    assert (await bench.find(picture().image_id, owner="you")).cached


async def test_a_request_id_is_its_owner_s(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    mine, yours = bench.finding(None, "click"), bench.finding(None, "click", owner="you")
    await eventually(lambda: bench.model.live == 2)
    await bench.cancel("click")
    with pytest.raises(MaskCancelledError):
        await mine
    assert not yours.done()
    bench.model.release()
    await yours


@with_settings(max_masks_in_flight=1, max_masks_waiting=15)
async def test_owners_take_turns_and_have_a_bound(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    mine = [bench.finding(picture(name)) for name in "abcdefgh"]
    await eventually(lambda: bench.masks.waiting == 7)
    with pytest.raises(TooMuchError, match="as many mask requests as one may: 8"):
        await bench.find()
    yours = [bench.finding(picture(name), owner="you") for name in "xy"]
    await eventually(lambda: bench.masks.waiting == 9)
    bench.model.release()
    await asyncio.gather(*mine, *yours)
    sent = b"".join(inputs["IMAGE"][0].removeprefix(b"shown ") for inputs in bench.model.requests)
    assert sent == b"axbycdefgh"


@pytest.mark.parametrize("image_id", ["0" * 64, "0" * 63, "", "A" * 64, "no-such-id"])
async def test_a_picture_that_nobody_has_is_not_found(bench: Bench, image_id: str) -> None:
    with pytest.raises(ImageNotFoundError) as caught, bench.masks.admitted(ME, None) as ticket:
        await bench.masks.find(ticket, CLICK, image_id)
    assert caught.value.detail == f"Image ID not found or expired: {image_id}"
    assert bench.sent == []


async def test_a_picture_in_which_nothing_is_found_is_kept(bench: Bench) -> None:
    bench.model.behaviour.refuse = (StatusCode.INVALID_ARGUMENT, NOTHING_FOUND)
    with pytest.raises(InvalidInputError, match=r"^FastSAM did not generate any masks: no object"):
        await bench.find()
    assert bench.cache.get(ME, picture().image_id) == picture()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[INVALID_ARGUMENT] IMAGE: damaged", InvalidInputError),
        ("[INVALID_ARGUMENT] POINTS: no", InvalidInputError),
        ("[UNAVAILABLE] full", UnavailableError),
        ("[INTERNAL] broken", BackendError),
    ],
)
async def test_a_picture_that_was_not_accepted_is_not_kept(
    bench: Bench, text: str, kind: type[ServingError]
) -> None:
    bench.model.behaviour.refuse = (StatusCode.INTERNAL, text)
    with pytest.raises(kind):
        await bench.find()
    assert len(bench.cache) == 0
    assert await bench.nothing_kept()


# --- pictures in the store ---


async def test_another_process_has_the_picture(bench: Bench) -> None:
    await bench.find()
    async with bench.another_process() as other:
        assert other.cache.get(ME, picture().image_id) is None
        with pytest.raises(ImageNotFoundError):
            await other.find(picture().image_id, owner="you")
        first, second = await asyncio.gather(*(other.find(picture().image_id) for _ in range(2)))
        assert (first.mask, second.image_id) == (MASK, picture().image_id)
        assert other.cache.get(ME, picture().image_id) == picture()
        assert bench.sent == ["IMAGE", "IMAGE", "IMAGE"]
        await other.find(picture().image_id)
        assert bench.sent[3:] == ["IMAGE_ID"]


async def test_what_model_and_cache_have_forgotten_comes_from_the_store(bench: Bench) -> None:
    first = await bench.find()
    bench.cache.put(ME, Picture(bytes(10**6 - 1024), "larger", b""))
    bench.model.known.clear()
    assert not (await bench.find(first.image_id)).cached
    assert bench.sent == ["IMAGE", "IMAGE_ID", "IMAGE"]


async def test_a_picture_is_written_while_the_network_runs(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding()
    await eventually(lambda: bench.model.live)
    async with asyncio.timeout(30):
        while not await bench.parts():
            await asyncio.sleep(0.01)
    assert not await bench.store.use(ME, picture().image_id)
    bench.model.release()
    await finding
    assert await bench.store.get(ME, picture().image_id) == picture()


async def test_an_answer_waits_for_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = asyncio.Event()
    write = bench.store.write

    async def slow(written: Picture) -> str:
        await going_on.wait()
        return await write(written)

    monkeypatch.setattr(bench.store, "write", slow)
    finding = bench.finding()
    await eventually(lambda: bench.sent and not bench.model.live)
    await eventually(lambda: bench.masks.running == 0)  # others may have its place
    assert not finding.done()
    going_on.set()
    assert await bench.store.get(ME, (await finding).image_id) == picture()


async def test_a_cancel_while_the_picture_is_kept_ends_the_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = asyncio.Event()

    async def slow(*_: object) -> None:
        await going_on.wait()

    monkeypatch.setattr(bench.store, "add", slow)
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.sent and not bench.model.live)
    finish = bench.masks.cancel(ME, "click")
    going_on.set()
    await finish()
    await cancelled(finding, "click")


async def test_what_the_cache_has_is_answered_while_the_store_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await bench.find()
    bench.store.note_s = 0  # every use is due
    with monkeypatch.context() as away:
        bench.lose_store(away)
        for known in (first.image_id, picture()):
            assert (await bench.find(known)).cached
        bench.model.known.clear()
        assert not (await bench.find(first.image_id)).cached
        for unknown in ("f" * 64, picture("new")):
            with pytest.raises(StoreAwayError, match="The job store does not answer"):
                await bench.find(unknown)
    await bench.find(picture("new"))
    assert await bench.store.get(ME, picture("new").image_id) == picture("new")


async def test_a_picture_in_use_that_the_store_has_forgotten_is_kept_again(bench: Bench) -> None:
    first = await bench.find()
    await bench.driver.write(rows("delete_picture", ME, first.image_id))
    await bench.find(first.image_id)
    assert not await bench.store.use(ME, first.image_id)  # it is not due yet
    bench.store.note_s = 0
    await bench.find(first.image_id)
    async with asyncio.timeout(30):
        while await bench.store.get(ME, first.image_id) != picture():
            await asyncio.sleep(0.01)


async def test_a_use_that_only_the_model_saw_is_noted(bench: Bench) -> None:
    first = await bench.find()
    bench.cache.put(ME, Picture(bytes(10**6 - 1024), "larger", b""))
    bench.store.note_s = 0
    before = await bench.used_at(first.image_id)
    assert (await bench.find(first.image_id)).cached
    async with asyncio.timeout(30):
        while await bench.used_at(first.image_id) == before:
            await asyncio.sleep(0.01)


# --- bounds ---


@with_settings(max_masks_in_flight=2, max_masks_waiting=3, owner_fraction=1)
async def test_few_run_some_wait_and_the_rest_is_refused(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = [bench.finding(picture(name)) for name in "abcde"]
    await eventually(lambda: bench.model.live == 2)
    await eventually(lambda: (bench.masks.waiting, bench.masks.running) == (3, 2))
    with pytest.raises(UnavailableError, match="busy with mask requests"):
        await bench.find()
    bench.model.release()
    assert len(await asyncio.gather(*finding)) == 5
    assert bench.model.most_at_once == 2
    sent = [inputs["IMAGE"][0].removeprefix(b"shown ") for inputs in bench.model.requests]
    # Two that begin together are on their way side by side.
    assert [set(sent[:2]), set(sent[2:4]), set(sent[4:])] == [{b"a", b"b"}, {b"c", b"d"}, {b"e"}]


@with_settings(max_masks_in_flight=1)
async def test_a_failure_frees_its_place(bench: Bench) -> None:
    for _ in range(3):
        bench.model.behaviour.refuse = (StatusCode.INTERNAL, "[INTERNAL] no")
        with pytest.raises(BackendError):
            await bench.find()
        bench.model.behaviour.refuse = None
        await bench.find()


@with_settings(max_masks_in_flight=1)
async def test_one_that_is_still_being_read_holds_up_nobody(bench: Bench) -> None:
    with bench.masks.admitted(ME, "slow upload"):
        await bench.find()


@with_settings(max_masks_in_flight=1)
async def test_an_abandoned_request_frees_its_place(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    running, waiting = bench.finding(picture("a")), bench.finding(picture("b"))
    await eventually(lambda: bench.model.live)
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (bench.masks.waiting, bench.masks.running) == (0, 0)
    bench.model.behaviour.delay_s = 0
    await bench.find()
    assert [inputs["IMAGE"][0] for inputs in bench.model.requests] == [
        b"shown a",
        b"shown " + picture().data,
    ]


async def test_an_abandoned_request_is_cancelled_in_band(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    bench.model.behaviour.cancels_missed = 2
    await bench.abandon()
    await eventually(lambda: bench.model.live == 0)
    assert len(bench.model.cancels) == 3
    assert len(bench.model.cancelled) == 1
    assert bench.model.cut == []
    assert len(bench.cache) == 0
    assert await bench.nothing_kept()


async def test_an_abandoned_request_makes_no_second_call(bench: Bench) -> None:
    first = await bench.find()
    bench.model.known.clear()
    bench.model.behaviour.delay_s = 60
    bench.model.behaviour.stubborn = True
    await bench.abandon()
    bench.model.release()  # the answer is that the picture is not known
    await eventually(lambda: bench.model.live == 0)
    assert first.image_id == picture().image_id
    assert bench.sent == ["IMAGE", "IMAGE_ID"]


@pytest.mark.parametrize("way", ["deaf", "stubborn"])
@with_settings(cancel_timeout_s=0.3, cancel_grace_s=0.3)
async def test_an_abandoned_request_that_does_not_end_is_cut(bench: Bench, way: str) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding()
    await eventually(lambda: bench.model.live)
    setattr(bench.model.behaviour, way, True)
    finding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finding
    await eventually(lambda: len(bench.model.cut) == 1)


async def test_closing_waits_for_abandoned_requests(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    await bench.abandon()
    await bench.masks.__aexit__()
    assert len(bench.model.cancelled) == 1
    assert not bench.masks._leaving


@with_settings(cancel_timeout_s=0.3, cancel_grace_s=3600)
async def test_closing_waits_no_longer_for_those_whose_clients_have_left(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 3600
    bench.model.behaviour.stubborn = True
    await bench.abandon()
    await eventually(lambda: bench.model.cancels)
    async with asyncio.timeout(30):
        await bench.masks.__aexit__()
    await eventually(lambda: len(bench.model.cut) == 1)
    assert not bench.masks._leaving


@with_settings(cancel_timeout_s=0.3)
async def test_closing_blames_no_model_for_what_is_still_being_read(bench: Bench) -> None:
    with bench.masks.admitted(ME, "click"):
        bench.masks._store._wake("mask-cancel:" + json.dumps([ME, "click"]))
        assert bench.masks._leaving
        with capture_logs() as lines:
            async with asyncio.timeout(30):
                await bench.masks.__aexit__()
    assert lines == []
    assert not bench.masks._leaving


async def test_a_live_request_id_is_refused_and_a_free_one_is_not(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    first = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    with pytest.raises(InvalidInputError, match=r"^request_id: click "):
        await bench.find(request_id="click")
    bench.model.release()
    await first
    await bench.find(request_id="click")


async def test_a_request_without_an_id_gets_one(bench: Bench) -> None:
    with bench.masks.admitted(ME, None) as one, bench.masks.admitted(ME, None) as other:
        assert len({one.request_id, other.request_id}) == 2


@with_settings(mask_timeout_s=0.1)
async def test_a_mask_has_a_deadline(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    with pytest.raises(BackendError, match="did not finish in time"):
        await bench.find()


# --- cancelling ---


async def cancelled(finding: asyncio.Task[MaskResult], request_id: str) -> None:
    with pytest.raises(MaskCancelledError) as caught:
        async with asyncio.timeout(30):
            await finding
    assert caught.value.detail == f"Segmentation request {request_id} was cancelled"


async def test_a_running_request_is_cancelled_in_band(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    await bench.cancel("click")
    await cancelled(finding, "click")
    assert len(bench.model.cancelled) == 1
    assert bench.model.cut == []
    assert len(bench.cache) == 0
    assert await bench.nothing_kept()


@with_settings(max_masks_in_flight=1)
async def test_a_waiting_request_never_reaches_triton(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    running, waiting = bench.finding(picture("a")), bench.finding(picture("b"), "click")
    await eventually(lambda: bench.model.live)
    await bench.cancel("click")
    await cancelled(waiting, "click")
    assert not running.done()
    bench.model.release()
    await running
    assert len(bench.model.requests) == 1
    assert bench.model.cancels == []


async def test_a_request_that_is_still_being_read_never_reaches_triton(bench: Bench) -> None:
    with bench.masks.admitted(ME, "click") as ticket:
        finishing = asyncio.create_task(bench.masks.cancel(ME, "click")())
        with pytest.raises(MaskCancelledError):
            await bench.masks.find(ticket, CLICK, picture())
    await finishing
    assert bench.model.requests == []


async def test_a_cancel_that_overtakes_its_request_is_repeated(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    bench.model.behaviour.cancels_missed = 3
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    await bench.cancel("click")
    await cancelled(finding, "click")
    assert len(bench.model.cancels) == 4


async def test_a_cancel_just_before_the_call_is_seen(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding(request_id="click")
    await asyncio.sleep(0)
    await bench.cancel("click")
    await cancelled(finding, "click")


async def test_a_cancel_gives_up_once_the_request_has_ended(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    bench.model.behaviour.cancels_missed = 10**6
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    cancelling = asyncio.create_task(bench.cancel("click"))
    await eventually(lambda: len(bench.model.cancels) > 1)
    bench.model.release()
    await cancelled(finding, "click")
    given_up_after = len(bench.model.cancels)
    await cancelling
    assert len(bench.model.cancels) <= given_up_after + 1
    assert bench.model.cut == []


@pytest.mark.parametrize("way", ["deaf", "stubborn"])
@with_settings(cancel_timeout_s=0.3, cancel_grace_s=0.3)
async def test_a_cancel_that_does_not_help_cuts_the_call(bench: Bench, way: str) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    setattr(bench.model.behaviour, way, True)
    await bench.cancel("click")
    await cancelled(finding, "click")
    await eventually(lambda: len(bench.model.cut) == 1)


async def test_a_cancel_between_two_calls_prevents_the_second(bench: Bench) -> None:
    first = await bench.find()
    bench.model.known.clear()
    bench.model.behaviour.delay_s = 60
    finding = bench.finding(first.image_id, "click")
    await eventually(lambda: len(bench.model.requests) == 2)
    bench.masks.cancel(ME, "click")
    bench.model.release()
    await cancelled(finding, "click")
    assert bench.sent == ["IMAGE", "IMAGE_ID"]


async def test_cancelling_twice_and_afterwards_is_harmless(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = bench.finding(request_id="click")
    await eventually(lambda: bench.model.live)
    await asyncio.gather(bench.cancel("click"), bench.cancel("click"))
    await cancelled(finding, "click")
    await bench.cancel("click")
    await bench.cancel("never heard of")
    bench.model.behaviour.delay_s = 0
    assert (await bench.find(request_id="click")).mask == MASK


async def test_a_cancel_waits_for_its_request(bench: Bench) -> None:
    await bench.cancel("click")
    with pytest.raises(MaskCancelledError, match="click was cancelled"):
        await bench.find(request_id="click")
    assert bench.model.requests == []
    await bench.cancel("click")  # repeated, and too late
    await bench.find(request_id="click")


@pytest.mark.parametrize("early", [False, True])
async def test_a_cancel_at_another_process_counts_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    async def tell(kind: str, text: str) -> None:
        bench.masks._store._wake(kind + text)  # as a driver does that hears other processes

    async with bench.another_process() as other:
        monkeypatch.setattr(other.masks._store, "tell", tell)
        bench.model.behaviour.delay_s = 60
        if early:
            await other.cancel("click")
        finding, yours = (bench.finding(request_id="click", owner=each) for each in (ME, "you"))
        if not early:
            await eventually(lambda: bench.model.live == 2)
            await other.cancel("click")
        await cancelled(finding, "click")
        await eventually(lambda: len(bench.model.cancelled) == (not early))
        assert not yours.done()
        bench.model.release()
        await yours
        await other.cancel("click")  # too late
        await bench.find(request_id="click")


async def test_a_cancel_that_cannot_be_told_is_no_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.lose_store(monkeypatch)
    await bench.cancel("click")
    await bench.cancel("x" * 10_000)


@with_settings(max_masks_in_flight=4)
async def test_requests_cancelled_at_random_all_end(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 0.01

    async def one(number: int) -> str:
        finding = bench.finding(picture(str(number % 5)), str(number))
        if number % 2:
            await asyncio.sleep(number % 13 / 300)
            await bench.cancel(str(number))
        try:
            return (await finding).image_id
        except MaskCancelledError as error:
            return error.detail

    answers = await asyncio.gather(*(one(number) for number in range(60)))
    ids = {picture(str(number)).image_id for number in range(5)}
    for number, answer in enumerate(answers):
        assert answer in ids or answer == f"Segmentation request {number} was cancelled"
    assert all(answer in ids for answer in answers[::2])
    assert any(answer not in ids for answer in answers)
    assert bench.model.cut == []


# --- faults ---


async def test_a_killed_triton_ends_its_requests_and_is_found_again(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = [bench.finding(picture(name)) for name in "abc"]
    await eventually(lambda: bench.model.live == 3)
    await bench.triton.kill()
    for task in finding:
        with pytest.raises(TritonDownError, match="Triton is not available"):
            await task
    with pytest.raises(TritonDownError):
        await bench.find()
    bench.model.behaviour.delay_s = 0
    await bench.triton.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await bench.find()
                break
            except TritonDownError:
                await asyncio.sleep(0.02)


@with_settings(max_masks_in_flight=1)
async def test_a_model_that_died_ends_its_requests(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    running, waiting = bench.finding(picture("a")), bench.finding(picture("b"))
    await eventually(lambda: bench.model.live)
    bench.model.behaviour.dead = True
    for task in (running, waiting):
        with pytest.raises(TritonDownError, match="has died"):
            async with asyncio.timeout(30):
                await task
    assert len(bench.model.requests) == 1
    bench.model.behaviour.delay_s = 0
    bench.model.behaviour.dead = False
    await eventually(lambda: bench.watch.state)
    await bench.find()


@with_settings(ping_timeout_s=1)
async def test_a_model_that_is_silent_gets_nothing_new_and_keeps_what_it_has(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    running = bench.finding(picture("a"))
    await eventually(lambda: bench.model.live)
    bench.model.behaviour.deaf = True
    watch = bench.watch
    await eventually(lambda: watch.state is None)
    with pytest.raises(TritonDownError, match="does not answer"):
        await bench.find(picture("b"))
    bench.model.release()
    assert (await running).mask
    bench.model.behaviour.deaf = False
    await eventually(lambda: watch.state)
    await bench.find()
    assert bench.model.cut == []


async def test_a_model_found_dead_by_a_request_is_away_at_once(bench: Bench) -> None:
    bench.model.behaviour.dead = True
    with pytest.raises(TritonDownError, match="has died"):
        await bench.find()
    assert bench.watch.state is None


@with_settings(ping_interval_s=0.02)
async def test_while_the_network_does_not_answer_masks_are_refused(bench: Bench) -> None:
    bench.model.behaviour.network_answers = False
    await eventually(lambda: not bench.watch.require().network_answers)
    with pytest.raises(TritonDownError, match="the mask network does not answer"):
        await bench.find()
    assert not bench.model.requests
    bench.model.behaviour.network_answers = True
    await eventually(lambda: bench.watch.require().network_answers)
    await bench.find()


async def test_an_unreadable_answer_is_an_error(bench: Bench) -> None:
    bench.model.behaviour.garbled = True
    with pytest.raises(BackendError, match="not readable"):
        await bench.find()
    assert len(bench.cache) == 0


@with_settings(max_masks_in_flight=1)
async def test_closing_ends_all_requests(bench: Bench) -> None:
    bench.model.behaviour.delay_s = 60
    finding = [bench.finding(picture(name)) for name in "ab"]
    await eventually(lambda: bench.model.live)
    await bench.masks.__aexit__()
    for task in finding:
        with pytest.raises(UnavailableError, match="shutting down"):
            await task
    with pytest.raises(UnavailableError, match="shutting down"):
        await bench.find()
    assert len(bench.model.cancelled) == 1
    assert bench.model.cut == []
