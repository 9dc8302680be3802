from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from frontend.domain.edits import EditParams, EditResult
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import JobNotFoundError, TooMuchError, UnavailableError
from frontend.jobs.memory import EVENT_BYTES, MAX_EVENTS, MemoryJobStore
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.domain.owners import Owner
    from frontend.jobs.store import Entry

RESULT = EditResult(b"png" * 100, b"{}")
ME = owner().name


def params(**changes: Any) -> EditParams:
    known: dict[str, Any] = {
        "prompt": "",
        "image": b"pixels",
        "task_type": "removal",
        "num_inference_steps": 4,
        "seed": 1,
    }
    return EditParams(**known | changes)


def event(status: str, step: int = 0, progress: float = 0.0, **fields: Any) -> JobEvent:
    return JobEvent(
        status=JobStatus(status),
        total_steps=4,
        current_step=step,
        progress=progress,
        at=0,
        **fields,
    )


def seqs(entries: Sequence[Entry]) -> list[int]:
    return [seq for seq, _ in entries]


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore(memory_bytes=10**6, ttl_s=60)


async def created(
    store: MemoryJobStore, task_id: str = "a", whose: Owner | None = None, **changes: Any
) -> str:
    first = event("queued")
    await store.create(task_id, params(**changes), b"original", first, whose or owner())
    return task_id


async def test_a_log_is_read_from_any_number(store: MemoryJobStore) -> None:
    task_id = await created(store)
    for step in range(1, 5):
        assert await store.append(task_id, event("processing", step))
    assert seqs(await store.read(task_id)) == [1, 2, 3, 4, 5]
    assert seqs(await store.read(task_id, after=3)) == [4, 5]
    assert await store.read(task_id, after=5) == []
    assert await store.read(task_id, after=99) == []
    assert await store.last(task_id) == (5, event("processing", 4))


async def test_a_reader_waits_for_the_next_entry(store: MemoryJobStore) -> None:
    task_id = await created(store)
    readers = [asyncio.create_task(store.read(task_id, 1, wait_s=5)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(reader.done() for reader in readers)
    await store.append(task_id, event("processing"))
    assert [seqs(await reader) for reader in readers] == [[2]] * 3


async def test_a_reader_does_not_wait_for_ever_nor_after_the_end(store: MemoryJobStore) -> None:
    task_id = await created(store)
    assert await store.read(task_id, 1, wait_s=0.01) == []
    await store.append(task_id, event("cancelled"))
    async with asyncio.timeout(30):
        assert await store.read(task_id, 2, wait_s=60) == []


async def test_nothing_follows_the_end(store: MemoryJobStore) -> None:
    task_id = await created(store)
    await store.append(task_id, event("error", error="500: no"))
    for status in JobStatus:
        assert not await store.append(task_id, event(status), RESULT)
    assert await store.result(task_id) is None
    assert len(await store.read(task_id)) == 2


async def test_result_and_done_appear_together(store: MemoryJobStore) -> None:
    task_id = await created(store)
    await store.append(task_id, event("processing"))
    assert await store.result(task_id) is None
    await store.append(task_id, event("done"), RESULT)
    assert await store.result(task_id) == RESULT


async def test_a_log_is_bounded_and_keeps_its_numbers(store: MemoryJobStore) -> None:
    task_id = await created(store)
    for _ in range(MAX_EVENTS + 10):
        await store.append(task_id, event("processing"))
    entries = await store.read(task_id)
    assert len(entries) == MAX_EVENTS
    assert seqs(entries) == list(range(12, MAX_EVENTS + 12))
    assert seqs(await store.read(task_id, MAX_EVENTS + 10)) == [MAX_EVENTS + 11]
    assert store.size == MAX_EVENTS * EVENT_BYTES + len(b"pixels" + b"original")


@pytest.mark.parametrize("ending", ["release", "cancelled"])
async def test_inputs_are_dropped_and_the_original_kept(store: MemoryJobStore, ending: str) -> None:
    task_id = await created(
        store, conditional_images=(bytes(1000),), reference_image=bytes(500), reference_mask_r=b"m"
    )
    assert (await store.params(task_id)).reference_image == bytes(500)
    before = store.size
    if ending == "release":
        await store.release(task_id)
        await store.release(task_id)
        assert store.size == before - 1501 - len(b"pixels")
    else:
        await store.append(task_id, event("cancelled"))
        assert store.size == before - 1501 - len(b"pixels") + EVENT_BYTES
    with pytest.raises(LookupError):
        await store.params(task_id)
    assert await store.original(task_id) == b"original"


async def test_unknown_jobs_are_not_found(store: MemoryJobStore) -> None:
    for call in (
        store.read("x"),
        store.last("x"),
        store.params("x"),
        store.release("x"),
        store.original("x"),
        store.result("x"),
        store.append("x", event("done")),
    ):
        with pytest.raises(JobNotFoundError, match="Task x not found"):
            await call


async def test_only_finished_jobs_expire() -> None:
    store = MemoryJobStore(memory_bytes=10**6, ttl_s=0.02)
    finished, unfinished = await created(store, "a"), await created(store, "b")
    await store.append(finished, event("cancelled"))
    await asyncio.sleep(0.05)
    with pytest.raises(JobNotFoundError):
        await store.last(finished)
    await store.last(unfinished)
    assert store.size == EVENT_BYTES + len(b"pixels" + b"original")


async def test_unfinished_jobs_may_fill_half() -> None:
    store = MemoryJobStore(memory_bytes=20_000, ttl_s=60)
    await created(store, "a", image=bytes(5_000))
    with pytest.raises(UnavailableError):
        await created(store, "b", image=bytes(5_000))
    await store.append("a", event("cancelled"))
    await created(store, "b", image=bytes(5_000))


async def test_the_jobs_that_finished_first_make_space() -> None:
    store = MemoryJobStore(memory_bytes=18_000, ttl_s=60)
    for task_id in ("a", "b", "c"):
        await created(store, task_id, image=bytes(1_000))
    for task_id in ("b", "a", "c"):
        await store.append(task_id, event("processing"))
        await store.append(task_id, event("done"), EditResult(bytes(3_500), b"{}"))
    with pytest.raises(JobNotFoundError):
        await store.last("b")
    await store.last("a")
    await store.last("c")
    assert store.size <= 18_000


async def test_a_result_that_cannot_fit_is_refused_and_the_job_can_still_fail() -> None:
    store = MemoryJobStore(memory_bytes=20_000, ttl_s=60)
    task_id = await created(store)
    await store.append(task_id, event("processing"))
    with pytest.raises(UnavailableError):
        await store.append(task_id, event("done"), EditResult(bytes(30_000), b"{}"))
    assert await store.append(task_id, event("error", error="503: no"))


async def test_an_event_without_a_picture_is_never_refused() -> None:
    store = MemoryJobStore(memory_bytes=10 * EVENT_BYTES, ttl_s=60)
    task_id = await created(store)
    for step in range(20):
        assert await store.append(task_id, event("processing", step))
    with pytest.raises(UnavailableError):
        await store.append(task_id, event("processing", preview=b"x"))
    assert await store.append(task_id, event("cancelled"))


async def test_jobs_are_listed_newest_first_with_numbers_that_stay(store: MemoryJobStore) -> None:
    for task_id in "abcd":
        await created(store, task_id, task_type="insertion")
    await store.append("b", event("processing", 1))
    await store.append("c", event("error", error="500: no"))
    found = await store.newest(ME, 10)
    assert [(job.number, job.job_id) for job in found] == [(4, "d"), (3, "c"), (2, "b"), (1, "a")]
    assert {job.task_type for job in found} == {"insertion"}
    assert found[2].first == event("queued")
    assert found[2].last == event("processing", 1)
    assert [job.job_id for job in await store.newest(ME, 2)] == ["d", "c"]
    assert [job.job_id for job in await store.newest(ME, 2, before=3)] == ["b", "a"]
    only = {JobStatus.QUEUED, JobStatus.ERROR}
    assert [job.job_id for job in await store.newest(ME, 10, statuses=only)] == ["d", "c", "a"]
    assert [job.job_id for job in await store.newest(ME, 1, 4, only)] == ["c"]


async def test_the_owner_of_the_most_loses_results_first() -> None:
    store = MemoryJobStore(memory_bytes=46_500, ttl_s=60)
    you = owner("you")
    for task_id, whose in (("first", None), *((name, you) for name in "abcdef")):
        await created(store, task_id, whose)
        await store.append(task_id, event("processing"))
        await store.append(task_id, event("done"), EditResult(bytes(6_000), b"{}"))
    assert await store.result("first") is not None
    assert [job.job_id for job in await store.newest("you", 10)] == ["f", "e", "d", "c"]
    assert [job.job_id for job in await store.newest(ME, 10)] == ["first"]
    assert [await store.owner(each) for each in ("first", "f")] == [ME, "you"]


async def test_an_owner_has_a_bound_of_bytes_in_unfinished_jobs(store: MemoryJobStore) -> None:
    few = owner("few", max_bytes=10_000)
    await created(store, "a", few, image=bytes(5_000))
    with pytest.raises(TooMuchError, match="as one may: 10000"):
        await created(store, "b", few, image=bytes(5_000))
    await created(store, "c", image=bytes(5_000))
    await store.append("a", event("cancelled"))
    await created(store, "b", few, image=bytes(5_000))
