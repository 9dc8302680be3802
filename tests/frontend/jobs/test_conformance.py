"""What every store must do: the rules of `frontend.jobs.store`, over each of the drivers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from frontend.domain.edits import EditResult
from frontend.domain.jobs import JobStatus
from frontend.domain.tritons import TritonState
from frontend.errors import (
    ClosingError,
    InvalidInputError,
    JobNotFoundError,
    StoreAwayError,
    TooMuchError,
    UnavailableError,
)
from frontend.jobs import sql_store, sweeping, transactions
from frontend.jobs.blobs import PART_BYTES
from frontend.jobs.sql_store import LOST_TEXT
from frontend.jobs.statements import rows
from frontend.jobs.store import Key, NewJob
from frontend.jobs.transactions import EVENT_BYTES
from tests.fakes.owners import owner
from tests.frontend.jobs.counting import counted
from tests.frontend.jobs.samples import (
    LEASE_S,
    ME,
    RESULT,
    TYPES,
    claimed,
    created,
    done,
    event,
    ids,
    original,
    params,
    reaped,
    result,
    seqs,
    statuses,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from frontend.jobs.sql_store import SqlStore
    from frontend.jobs.store import JobStore
    from tests.frontend.jobs.conftest import OpenStore


# --- what a job is made of ---


async def test_a_picture_is_read_part_by_part(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: dict[str, Any] = {
        "image": bytes(2 * PART_BYTES),
        "reference_image": bytes(PART_BYTES + 1),
    }
    await created(store, **pictures)
    largest = counted(store.driver, "piece", monkeypatch, "read")
    assert await store.params("a") == params(**pictures)
    assert set(largest) == {1}


async def test_a_job_is_what_it_was_created_with(store: JobStore) -> None:
    big = bytes(range(256)) * 5000  # more than one part
    given = params(
        image=big,
        conditional_images=tuple(bytes([i]) for i in range(12)),
        reference_image=b"",
        negative_prompt="ü",
        width=512,
        true_cfg_scale=1.5,
        preview=True,
    )
    first = event("queued", size=(8, 9), queue_position=1, eta_seconds=0.5, at=12.25)
    new = NewJob(job_id="a", params=given, original=big[1:], event=first, owner=ME)
    assert (await store.create(new)).job_id == "a"
    assert await store.params("a") == given
    assert await original(store, "a") == big[1:]
    assert await store.last("a") == (1, first)
    claim = await claimed(store)
    assert (claim.job_id, claim.task_type, claim.last) == ("a", "removal", (1, first))
    running = step(1, size=(8, 9), computed_sizes=((1, 2), (3, 4)), preview=b"webp")
    assert await store.append(claim, 2, running)
    assert await store.last("a") == (2, running)


async def test_a_result_is_read_in_pieces(store: JobStore) -> None:
    await created(store)
    image = bytes(range(256)) * (2 * PART_BYTES // 256) + b"end"
    assert await done(store, await claimed(store), EditResult(image, b"{}"))
    assert await store.size_of("a", "image") == len(image)
    assert await store.size_of("a", "info") == 2
    assert await store.size_of("a", "original") == len(b"original")
    found, at = b"", 0
    while piece := await store.piece_of("a", "image", at, 300_000):
        at += len(piece)
        found += piece
    assert found == image
    assert await store.piece_of("a", "image", 5, 3) == image[5:8]


async def test_unknown_jobs_are_not_found(store: JobStore) -> None:
    for call in (
        store.read("x"),
        store.last("x"),
        store.params("x"),
        original(store, "x"),
        result(store, "x"),
        store.size_of("x", "image"),
        store.ask_cancel("x"),
        store.end_waiting("x", JobStatus.CANCELLED, ""),
    ):
        with pytest.raises(JobNotFoundError, match="Task x not found"):
            await call


async def test_a_nul_is_in_no_id(store: JobStore) -> None:
    with pytest.raises(JobNotFoundError):
        await store.owner("a\0")


# --- the log ---


async def test_a_log_is_read_from_any_number(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    for number in range(1, 5):
        assert await store.append(claim, number + 1, step(number))
    assert seqs(await store.read("a")) == [1, 2, 3, 4, 5]
    assert seqs(await store.read("a", after=3)) == [4, 5]
    assert await store.read("a", after=5) == []
    assert await store.read("a", after=99) == []
    assert await store.last("a") == (5, step(4))


async def test_a_reader_waits_for_the_next_entry(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    readers = [asyncio.create_task(store.read("a", 1, wait_s=30)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(reader.done() for reader in readers)
    await store.append(claim, 2, step(1))
    assert [seqs(await reader) for reader in readers] == [[2]] * 3


async def test_a_reader_does_not_wait_for_ever_nor_after_the_end(store: JobStore) -> None:
    await created(store)
    assert await store.read("a", 1, wait_s=0.01) == []
    await store.end_waiting("a", JobStatus.CANCELLED, "")
    async with asyncio.timeout(30):
        assert await store.read("a", 2, wait_s=60) == []


async def test_a_reader_hears_what_another_process_writes(open_store: OpenStore) -> None:
    here, there = await open_store(), await open_store()
    await created(here)
    reader = asyncio.create_task(here.read("a", 1, wait_s=30))
    await there.end_waiting("a", JobStatus.ERROR, "500: no")
    assert seqs(await reader) == [2]


async def test_a_reader_of_a_closed_store_is_let_go(open_store: OpenStore) -> None:
    closed, other = await open_store(), await open_store()
    await created(closed)
    reader = asyncio.create_task(closed.read("a", 1, wait_s=60))
    await asyncio.sleep(0.05)
    await closed.close()
    with pytest.raises(ClosingError):
        await reader
    with pytest.raises(ClosingError):
        await closed.last("a")
    assert (await other.last("a"))[0] == 1


# rule 3
async def test_a_number_never_gets_another_content(open_store: OpenStore) -> None:
    store = await open_store()
    await created(store)
    claim = await claimed(store)
    assert await store.append(claim, 2, step(1))
    for seq in (1, 2, 4, 99):
        assert not await store.append(claim, seq, step(3))
        assert not await store.end(claim, seq, event("done"), RESULT)
    again = await open_store()
    assert await again.read("a") == [(1, event("queued")), (2, step(1))]
    assert await store.append(claim, 3, step(2))


async def test_of_two_that_write_one_number_one_does(open_store: OpenStore) -> None:
    here, there = await open_store(), await open_store()
    await created(here)
    claim = await claimed(here)
    for seq in range(2, 12):
        answers = await asyncio.gather(
            *(store.append(claim, seq, step(seq)) for store in (here, there))
        )
        assert sorted(answers) == [False, True]
    assert seqs(await here.read("a")) == list(range(1, 12))


# --- claims ---


# rule 8
async def test_claims_go_in_the_order_of_creation(store: JobStore) -> None:
    for job_id in "abc":
        await created(store, job_id)
    first, second = await claimed(store), await claimed(store)
    assert (first.job_id, second.job_id) == ("a", "b")
    assert await store.give_back(first)
    assert [listed.job_id for listed in (await store.view()).waiting] == ["a", "c"]
    again = await claimed(store)
    assert (again.job_id, again.attempt) == ("a", first.attempt + 1)
    assert (await claimed(store)).job_id == "c"
    assert await store.claim("w", TYPES, LEASE_S) is None


async def test_a_worker_claims_what_it_can_run(store: JobStore) -> None:
    await created(store, "a", task_type="white-balance")
    await created(store, "b", task_type="insertion")
    assert await store.claim("w", ["removal", "balance"], LEASE_S) is None
    claim = await store.claim("w", ["removal", "insertion"], LEASE_S)
    assert claim is not None
    assert claim.job_id == "b"


# rule 5
async def test_no_two_claims_return_one_job(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(3)]
    ids = [await created(stores[0], str(number)) for number in range(12)]
    claims = await asyncio.gather(
        *(store.claim(f"w{i}", TYPES, LEASE_S) for i in range(5) for store in stores)
    )
    assert sorted(claim.job_id for claim in claims if claim) == sorted(ids)


# rule 5
async def test_a_job_that_is_to_be_cancelled_is_never_claimed(store: JobStore) -> None:
    await created(store)
    assert await store.ask_cancel("a") == "queued"
    assert await store.claim("w", TYPES, LEASE_S) is None
    assert (await store.view()).waiting == []
    assert await store.end_waiting("a", JobStatus.CANCELLED, "no")
    assert await store.ask_cancel("a") == "cancelled"


# rule 1
async def test_who_has_lost_a_job_writes_nothing(store: JobStore) -> None:
    await created(store)
    lost = await claimed(store, lease_s=0)
    await store.append(lost, 2, step(1))
    await asyncio.sleep(0.01)
    assert await reaped(store) == ["a"]
    held = await claimed(store, "w")
    assert (held.worker, held.attempt) == (lost.worker, lost.attempt + 1)
    before = await store.read("a")
    for claim in (lost, dataclasses.replace(held, worker="stranger")):
        assert not await store.append(claim, 4, step(2))
        assert not await store.end(claim, 4, event("done"), RESULT)
        assert not await store.give_back(claim)
        assert not await store.give_back(claim, "500: lost")
    assert await store.read("a") == before
    assert await store.append(held, 4, step(2))
    assert await store.end(held, 5, event("done"), RESULT)
    assert await result(store, "a") == RESULT


async def test_a_renewed_lease_is_not_over(store: JobStore) -> None:
    await created(store)
    await created(store, "b")
    claim = await claimed(store, lease_s=0)
    other = await claimed(store, "other", lease_s=0)
    held = await store.renew([claim], LEASE_S)
    assert held == [("a", claim.attempt, False)]
    await store.ask_cancel("a")
    assert (await store.renew([claim], LEASE_S))[0].cancel_asked
    await asyncio.sleep(0.01)
    assert await reaped(store) == [other.job_id]
    assert await store.renew([other], LEASE_S) == []
    assert await store.append(claim, 2, step(1))


async def test_a_lease_that_ends_after_the_moment_asked_for_is_not_over(store: JobStore) -> None:
    before = await store.beat(0)
    await created(store)
    await claimed(store, lease_s=0)
    await asyncio.sleep(0.01)
    assert await store.reap(before) == []
    after = await store.beat(0)
    assert before < after
    assert ids(await store.reap(after)) == ["a"]


async def test_a_lost_attempt_is_told_in_the_log(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    await store.append(claim, 2, step(2))
    assert await store.give_back(claim, "500: it died") == ("a", "removal", None)
    seq, told = await store.last("a")
    assert (seq, told.status, told.restarts) == (3, "queued", 1)
    assert (told.current_step, told.progress) == (2, 0.2)
    claim = await claimed(store)
    assert claim.last == (seq, told)
    await store.append(claim, 4, step(1))
    freed = await store.give_back(claim, "500: it died")
    seq, end = await store.last("a")
    assert freed == ("a", "removal", end)
    assert (seq, end.status, end.error) == (5, "error", "500: it died")
    assert await store.claim("w", TYPES, LEASE_S) is None


async def test_what_does_not_count_may_happen_often(store: JobStore) -> None:
    await created(store)
    for _ in range(5):
        assert await store.give_back(await claimed(store))
    assert await statuses(store, "a") == ["queued"]


async def test_a_job_without_repeats_ends_with_its_first_loss(store: JobStore) -> None:
    first = event("queued")
    new = NewJob(job_id="a", params=params(), original=b"", event=first, owner=ME, max_attempts=1)
    await store.create(new)
    await claimed(store, lease_s=0)
    await asyncio.sleep(0.01)
    freed = await store.reap(await store.beat(0))
    _, end = await store.last("a")
    assert freed == [("a", "removal", end)]
    assert end.error == LOST_TEXT


async def test_a_lost_job_that_is_to_be_cancelled_is_cancelled(store: JobStore) -> None:
    for job_id in "ab":
        await created(store, job_id)
    given, _ = await claimed(store), await claimed(store, lease_s=0)
    for job_id in "ab":
        await store.ask_cancel(job_id)
    assert await store.give_back(given)
    await asyncio.sleep(0.01)
    assert await reaped(store) == ["b"]
    for job_id in "ab":
        assert (await store.last(job_id))[1].status == "cancelled"


# --- ends ---


# rule 2
async def test_exactly_one_end_wins(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(3)]
    for number in range(8):
        job_id = await created(stores[0], str(number))
        claim = await claimed(stores[0], lease_s=0)
        await stores[0].append(claim, 2, step(1))
        if number % 2:
            await stores[0].ask_cancel(job_id)
        await asyncio.sleep(0.01)
        answers = await asyncio.gather(
            stores[0].end(claim, 3, event("done"), RESULT),
            stores[1].end(claim, 3, event("error", error="500: no")),
            reaped(stores[2]),
            stores[1].end_waiting(job_id, JobStatus.ERROR, "500: no"),
        )
        log = await statuses(stores[2], job_id)
        while log[-1] == "queued":  # it was reaped first, and nothing has ended it
            assert await stores[0].end_waiting(job_id, JobStatus.ERROR, "500: no")
            log = await statuses(stores[2], job_id)
        ends = [status for status in log if JobStatus(status).terminal]
        assert len(ends) == 1
        assert log[-1] == ends[0]
        assert (await result(stores[1], job_id) is not None) == (ends == ["done"])
        assert (ends == ["done"]) == answers[0]
        assert not await stores[0].end(claim, len(log) + 1, event("error"))
        assert not await stores[0].end_waiting(job_id, JobStatus.CANCELLED, "")


# rule 4
async def test_result_and_done_appear_together(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    await store.append(claim, 2, step(1))
    assert await result(store, "a") is None
    assert await store.end(claim, 3, event("done"), RESULT)
    assert await result(store, "a") == RESULT
    with pytest.raises(LookupError):
        await store.params("a")
    assert await original(store, "a") == b"original"


# rule 6
async def test_an_end_whose_answer_was_lost_is_repeated(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    assert await done(store, claim)
    assert not await store.end(claim, 3, event("done", 4, 1.0), RESULT)
    assert await store.last("a") == (3, event("done", 4, 1.0))
    assert await result(store, "a") == RESULT


# rule 1
@pytest.mark.parametrize("lost_in", ["its end", "its parts"])
async def test_a_result_that_does_not_count_leaves_nothing(
    store: SqlStore, lost_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(store)
    zombie = await claimed(store)
    assert await store.give_back(zombie)
    other = await claimed(store, "other")
    put = store._put

    async def away(job_id: str, name: str, data: bytes) -> None:
        if name == "1/info":
            raise StoreAwayError("The job store does not answer")
        await put(job_id, name, data)

    if lost_in == "its end":
        assert await done(store, other)
        assert not await store.end(zombie, 2, event("done", 4, 1.0), RESULT)
        assert await result(store, "a") == RESULT
    else:
        with monkeypatch.context() as broken:
            broken.setattr(store, "_put", away)
            with pytest.raises(StoreAwayError):
                await store.end(zombie, 2, event("done", 4, 1.0), RESULT)
        assert await done(store, other)
    assert await store.driver.read(rows("piece", "a", "1/image", 0, 1, 1)) == []


@pytest.mark.parametrize("comes_through", [True, False])
async def test_an_end_that_was_given_up_loses_nothing_of_its_result(
    store: SqlStore, comes_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(store)
    claim = await claimed(store)
    assert await store.append(claim, 2, step(1))
    last, write = (claim, 3, event("done", 4, 1.0), RESULT), store.driver.write
    given_up: list[Any] = []

    def away(steps: Any, *_: Any) -> Any:
        given_up.append(steps)
        raise StoreAwayError("The job store does not answer: TimeoutError")

    with monkeypatch.context() as slow:
        slow.setattr(store.driver, "write", away)
        with pytest.raises(StoreAwayError):
            await store.end(*last)
    # To delete it now could come through late too: after the end that is tried again has found it.
    assert await store.driver.read(rows("piece", "a", "1/image", 0, 1, 1))
    if comes_through:
        assert await write(given_up[0])
    assert await store.end(*last) != comes_through
    assert await result(store, "a") == RESULT


async def test_a_held_job_ends_only_by_its_claim(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    assert not await store.end_waiting("a", JobStatus.CANCELLED, "no")
    assert await store.end(claim, 2, event("cancelled"))


# rule 2
@pytest.mark.parametrize("end", ["done", "error", "cancelled"])
async def test_a_cancel_that_came_before_the_end_wins(store: JobStore, end: str) -> None:
    await created(store)
    claim = await claimed(store)
    assert await store.append(claim, 2, step(1))
    await store.ask_cancel("a")
    outcome = RESULT if end == "done" else None
    for _ in range(2):
        ended = await store.end(claim, 3, event(end, error=None if outcome else "500: no"), outcome)
        assert ended == (end == "cancelled")
        if ended:
            break
    assert (await store.last("a"))[1].status == "cancelled"
    assert await result(store, "a") is None
    assert await store.size_of("a", "image") == 0


# rule 2
async def test_a_cancel_and_an_end_at_one_moment_agree(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(2)]
    for number in range(12):
        job_id = await created(stores[0], str(number))
        claim = await claimed(stores[0])
        assert await stores[0].append(claim, 2, step(1))
        status, ended = await asyncio.gather(
            stores[1].ask_cancel(job_id), stores[0].end(claim, 3, event("done", 4, 1.0), RESULT)
        )
        assert ended == (status == "done")
        assert (await stores[1].last(job_id))[1].status == ("done" if ended else "cancelled")


async def test_a_waiting_job_that_is_to_be_cancelled_ends_so(store: JobStore) -> None:
    await created(store)
    await store.ask_cancel("a")
    assert await store.end_waiting("a", JobStatus.ERROR, "503: no Triton")
    assert (await store.last("a"))[1].status == "cancelled"


async def test_a_cancel_that_nobody_finished_is_swept(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(store)
    await store.ask_cancel("a")
    await store.sweep()
    assert (await store.last("a"))[1].status == "queued"
    monkeypatch.setattr("frontend.jobs.transactions.STALE_CANCEL_S", -1)
    await store.sweep()
    assert (await store.last("a"))[1].status == "cancelled"


# --- keys ---


# rule 6
async def test_to_create_again_changes_nothing(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    await store.append(claim, 2, step(1))
    assert await created(store) == "a"
    assert await statuses(store, "a") == ["queued", "processing"]
    assert await original(store, "a") == b"original"


# rule 6
async def test_to_create_again_works_although_the_queue_is_full(open_store: OpenStore) -> None:
    store = await open_store(waiting=1)
    key = Key("k", b"digest")
    await created(store, "a", key)
    with pytest.raises(UnavailableError, match="The queue is full"):
        await created(store, "b")
    assert await created(store, "a", key) == "a"
    assert await created(store, "c", key) == "a"
    assert await original(store, "a") == b"original"


async def test_one_key_is_one_job(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(3)]
    key = Key("k", b"digest")
    assert await stores[0].keyed("o", key) is None
    ids = await asyncio.gather(*(created(store, f"{i}", key) for i, store in enumerate(stores * 3)))
    assert len(set(ids)) == 1
    assert await stores[1].keyed("o", key) == ids[0]
    assert len(await stores[0].newest("o", 100)) == 1
    assert await original(stores[0], ids[0]) == b"original"
    assert await created(stores[0], "other", key, owner=owner("p")) == "other"
    for call in (
        created(stores[0], "x", Key("k", b"of another")),
        stores[0].keyed("o", Key("k", b"of another")),
    ):
        with pytest.raises(InvalidInputError, match="Idempotency-Key"):
            await call
    assert await created(stores[0], "x", Key("l", b"of another")) == "x"


# --- bounds ---


# rule 7
async def test_bounds_hold_under_concurrent_calls(open_store: OpenStore) -> None:
    stores = [await open_store(waiting=5) for _ in range(3)]
    answers = await asyncio.gather(
        *(created(store, f"{i}") for i, store in enumerate(stores * 4)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refused) == 7
    assert {type(answer) for answer in refused} == {UnavailableError}
    assert len((await stores[0].view()).waiting) == 5
    await claimed(stores[0])
    await created(stores[0], "one more")


async def test_unfinished_jobs_may_fill_half(open_store: OpenStore) -> None:
    store = await open_store(max_bytes=20_000)
    await created(store, "a", image=bytes(5_000))
    with pytest.raises(UnavailableError):
        await created(store, "b", image=bytes(5_000))
    await store.end_waiting("a", JobStatus.CANCELLED, "")
    await created(store, "b", image=bytes(5_000))


async def test_the_jobs_that_finished_first_make_space(open_store: OpenStore) -> None:
    store = await open_store(max_bytes=15_500)
    claims = {}
    for job_id in "abc":
        await created(store, job_id, image=bytes(1_000))
        claims[job_id] = await claimed(store)
    for job_id in "bac":
        assert await done(store, claims[job_id], EditResult(bytes(2_500), b"{}"))
        await asyncio.sleep(0.002)  # the store's clock has to tell the ends apart
    with pytest.raises(JobNotFoundError):
        await store.last("b")
    await store.last("a")
    await store.last("c")


@pytest.mark.parametrize("waiting_bytes", [1_000, 20_000])
async def test_a_bound_that_was_lowered_is_kept_by_the_next_sweep(
    open_store: OpenStore, waiting_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await open_store(max_bytes=100_000)
    for number in range(6):
        await created(before, f"{number}")
        assert await done(before, await claimed(before), EditResult(bytes(2_000), b"{}"))
        await asyncio.sleep(0.002)  # the store's clock has to tell the ends apart
    await created(before, image=bytes(waiting_bytes))
    monkeypatch.setattr(transactions, "FORGET_AT_ONCE", 2)
    store = await open_store(max_bytes=15_000)
    forgotten = counted(store.driver, "delete_job", monkeypatch)
    await store.sweep()
    assert set(forgotten) <= {1, 2}
    kept = ["a"] if waiting_bytes > 15_000 else ["a", "5", "4"]
    assert [job.job_id for job in await store.newest("o", 20)] == kept
    await store.sweep()
    assert [job.job_id for job in await store.newest("o", 20)] == kept


@pytest.mark.parametrize("what", ["job", "preview", "result"])
async def test_the_others_have_their_turn_while_many_jobs_make_space(
    open_store: OpenStore, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(max_bytes=30_000)
    for number in range(10):
        await created(store, f"{number}")
        await store.end_waiting(f"{number}", JobStatus.CANCELLED, "")
    monkeypatch.setattr(transactions, "FORGET_AT_ONCE", 2)
    forgotten = counted(store.driver, "delete_job", monkeypatch)
    if what == "job":
        await created(store, image=bytes(13_000))
    else:
        await created(store)
        claim, large = await claimed(store), bytes(24_000)
        if what == "preview":
            assert await store.append(claim, 2, step(1, preview=large))
        else:
            assert await done(store, claim, EditResult(large, b"{}"))
    assert len(forgotten) > 1
    assert set(forgotten) <= {1, 2}
    left = {job.job_id for job in await store.newest("o", 20)} - {"a"}
    assert left == {f"{number}" for number in range(sum(forgotten), 10)}


async def test_a_result_that_cannot_fit_is_refused_and_the_job_can_still_fail(
    open_store: OpenStore,
) -> None:
    store = await open_store(max_bytes=20_000)
    await created(store)
    claim = await claimed(store)
    await store.append(claim, 2, event("processing"))
    with pytest.raises(UnavailableError):
        await store.end(claim, 3, event("done"), EditResult(bytes(30_000), b"{}"))
    assert await store.end(claim, 3, event("error", error="503: no"))


async def test_an_event_without_a_picture_is_never_refused(open_store: OpenStore) -> None:
    store = await open_store(max_bytes=10 * EVENT_BYTES)
    await created(store)
    claim = await claimed(store)
    for number in range(20):
        assert await store.append(claim, number + 2, step(number))
    with pytest.raises(UnavailableError):
        await store.append(claim, 22, step(20, preview=b"x"))
    assert await store.end(claim, 22, event("cancelled"))


async def test_only_finished_jobs_expire(open_store: OpenStore) -> None:
    store = await open_store(ttl_s=0)
    for job_id in "ab":
        await created(store, job_id)
    await store.end_waiting("a", JobStatus.CANCELLED, "")
    await asyncio.sleep(0.01)
    await store.sweep()
    with pytest.raises(JobNotFoundError):
        await store.last("a")
    await store.last("b")


async def test_what_a_clock_that_was_ahead_has_written_expires(store: SqlStore) -> None:
    driver: Any = store.driver
    driver._texts["ended_ahead"] = "UPDATE jobs SET ended_at = ended_at + $1"
    driver._texts["put_ahead"] = "UPDATE blobs SET put_at = put_at + $1"
    for name in ("ended", "lost", "waits"):
        await created(store, name)
    await store.end_waiting("ended", JobStatus.CANCELLED, "")
    await driver.write(rows("delete_job", "lost"))
    names = ("ended", "lost", "waits")

    async def left() -> list[str]:
        found = [await driver.read(rows("piece", name, "original", 0, 1, 1)) for name in names]
        return [name for name, piece in zip(names, found, strict=True) if piece]

    # By less than a finished job or a blob without its job is kept anyway, and then by a year.
    for ahead_s, kept in ((30.0, list(names)), (365 * 86400.0, ["waits"])):
        await driver.write(rows("ended_ahead", ahead_s))
        await driver.write(rows("put_ahead", ahead_s))
        store._orphans._due = -math.inf  # as if its time had come again
        await store.sweep()
        assert await left() == kept


async def test_the_others_have_their_turn_while_many_jobs_expire(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(ttl_s=0)
    for number in range(9):
        await created(store, f"{number}")
        await store.end_waiting(f"{number}", JobStatus.CANCELLED, "")
    await asyncio.sleep(0.01)
    monkeypatch.setattr(transactions, "FORGET_AT_ONCE", 2)
    forgotten = counted(store.driver, "delete_job", monkeypatch)
    with monkeypatch.context() as hurried:
        hurried.setattr(sweeping, "ROUND_S", 0)
        await store.sweep()
    assert forgotten == [2]
    monkeypatch.setattr(sweeping, "ROUND_S", 60)
    await store.sweep()
    assert forgotten == [2, 2, 2, 2, 1]
    assert await store.newest("o", 20) == []


async def test_blobs_without_a_job_are_looked_for_a_few_at_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver: Any = store.driver
    driver._texts["age"] = "UPDATE blobs SET put_at = 5"  # long ago, and all at one time
    for name in ("lost-1", "lost-2", "a", "lost-3"):
        await created(store, name)
        for number in range(3):
            await driver.write_part(rows("put_part", name, f"1/{number}", 0, b"picture"))
        if name != "a":
            await driver.write(rows("delete_job", name))
    await driver.write(rows("age"))
    monkeypatch.setattr(sweeping, "LOOK_AT_ONCE", 2)
    monkeypatch.setattr(sweeping, "ROUND_S", 0)
    names = ("a", "lost-1", "lost-2", "lost-3")

    async def left() -> list[str]:
        return [name for name in names if await driver.read(rows("piece", name, "1/0", 0, 1, 1))]

    await store.sweep()  # sees those of "a" alone
    assert await left() == list(names)
    for _ in range(8):  # at most as many as there are
        await store.sweep()
    assert await left() == ["a"]
    assert await original(store, "a") == b"original"


# --- the list ---


async def test_jobs_are_listed_newest_first_with_numbers_that_stay(store: JobStore) -> None:
    for job_id in "abcd":
        await created(store, job_id, task_type="insertion")
    claim = await claimed(store)
    await store.append(claim, 2, step(1))
    await store.end_waiting("c", JobStatus.ERROR, "500: no")
    found = await store.newest("o", 10)
    assert [(job.number, job.job_id) for job in found] == [(4, "d"), (3, "c"), (2, "b"), (1, "a")]
    assert {(job.task_type, job.created_at) for job in found} == {("insertion", 0.0)}
    assert found[3].last == step(1)
    assert [job.job_id for job in await store.newest("o", 2)] == ["d", "c"]
    assert [job.job_id for job in await store.newest("o", 2, before=3)] == ["b", "a"]
    only = {JobStatus.QUEUED, JobStatus.ERROR}
    assert [job.job_id for job in await store.newest("o", 10, statuses=only)] == ["d", "c", "b"]
    assert [job.job_id for job in await store.newest("o", 1, 4, only)] == ["c"]


# --- owners ---


async def test_owners_take_turns_and_each_starts_in_order(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(2)]
    you, third = owner("you"), owner("third")
    for job_id in "abcd":
        await created(stores[0], job_id)
    assert (await claimed(stores[0])).job_id == "a"
    for job_id in "xy":
        await created(stores[1], job_id, owner=you)
    await created(stores[0], "z", owner=third)
    listed = (await stores[1].view()).waiting
    assert [(job.job_id, job.owner, job.last_turn) for job in listed] == [
        *((job_id, "o", 1) for job_id in "bcd"), ("x", "you", 0), ("y", "you", 0), ("z", "third", 0)
    ]  # fmt: skip
    claims = [await claimed(stores[number % 2]) for number in range(6)]
    assert [claim.job_id for claim in claims] == list("xzbycd")
    assert [claim.turn for claim in claims] == [2, 3, 4, 5, 6, 7]
    assert {claim.owner for claim in claims} == {"o", "you", "third"}


async def test_a_turn_outlives_the_job_that_had_it(store: JobStore) -> None:
    for job_id in "abc":
        await created(store, job_id)
    assert await done(store, await claimed(store))
    await created(store, "x", owner=owner("you"))
    assert [(await claimed(store)).job_id for _ in range(3)] == ["x", "b", "c"]


@pytest.mark.parametrize("how", ["given back", "reaped"])
async def test_a_job_that_waits_again_gives_its_owner_the_turn_back(
    store: JobStore, how: str
) -> None:
    for job_id, whose in (("a", ME), ("b", ME), ("x", owner("you"))):
        await created(store, job_id, owner=whose)
    claim = await claimed(store, lease_s=0 if how == "reaped" else LEASE_S)
    if how == "reaped":
        await asyncio.sleep(0.002)
        assert await reaped(store) == ["a"]
    else:
        assert await store.give_back(claim)
    assert [(await claimed(store)).job_id for _ in range(3)] == ["a", "x", "b"]


async def test_an_owner_with_enough_jobs_running_loses_its_turn(store: JobStore) -> None:
    few = owner("few", max_running=1)
    for job_id in "abc":
        await created(store, job_id, owner=few)
    first = await claimed(store)
    assert first.max_running == 1
    assert await store.claim("w", TYPES, LEASE_S) is None
    await created(store, "x")
    assert (await claimed(store)).job_id == "x"
    assert [job.max_running for job in (await store.view()).waiting] == [1, 1]
    assert await done(store, first)
    assert (await claimed(store)).job_id == "b"


async def test_the_bound_of_running_jobs_holds_under_concurrent_claims(
    open_store: OpenStore,
) -> None:
    stores = [await open_store() for _ in range(3)]
    few, you = owner("few", max_running=1), owner("you")
    for round_ in range(4):
        for number in range(3):
            await created(stores[0], f"few{round_}{number}", owner=few)
            await created(stores[0], f"you{round_}{number}", owner=you)
        claims = await asyncio.gather(
            *(store.claim("w", TYPES, LEASE_S) for store in stores for _ in range(2))
        )
        held = [claim for claim in claims if claim]
        assert sorted(claim.owner for claim in held) == ["few", *["you"] * len(held[1:])]
        assert len({claim.turn for claim in held}) == len(held)
        for claim in held:
            assert await done(stores[0], claim)
        await stores[0].end_waiting(f"few{round_}1", JobStatus.CANCELLED, "")
        await stores[0].end_waiting(f"few{round_}2", JobStatus.CANCELLED, "")


async def test_an_owner_has_bounds_of_its_own(open_store: OpenStore) -> None:
    store = await open_store(waiting=3)
    few, small = owner("few", max_waiting=1), owner("small", max_bytes=10_000)
    await created(store, "a", owner=few)
    with pytest.raises(TooMuchError, match="as many waiting jobs as one may: 1"):
        await created(store, "b", owner=few)
    await created(store, "c", owner=small, image=bytes(5_000))
    with pytest.raises(TooMuchError, match="as one may: 10000"):
        await created(store, "d", owner=small, image=bytes(5_000))
    await created(store, "e")
    with pytest.raises(UnavailableError, match="The queue is full"):
        await created(store, "f", owner=few)
    await claimed(store)  # a
    await created(store, "b", owner=few)
    assert [job.job_id for job in (await store.view()).waiting] == ["c", "e", "b"]


async def test_jobs_are_their_owner_s(store: JobStore) -> None:
    await created(store, "a")
    await created(store, "b", owner=owner("you"))
    assert [await store.owner(job_id) for job_id in "ab"] == ["o", "you"]
    assert [job.job_id for job in await store.newest("o", 10)] == ["a"]
    only = {JobStatus.QUEUED}
    assert [job.job_id for job in await store.newest("you", 10, statuses=only)] == ["b"]
    with pytest.raises(JobNotFoundError):
        await store.owner("x")


async def test_the_owner_of_the_most_loses_results_first(open_store: OpenStore) -> None:
    store = await open_store(max_bytes=46_500)
    you = owner("you")
    for job_id, whose in (("first", ME), *((name, you) for name in "abcdef")):
        await created(store, job_id, owner=whose)
        assert await done(store, await claimed(store), EditResult(bytes(6_000), b"{}"))
        await asyncio.sleep(0.002)  # the store's clock has to tell the ends apart
    assert await result(store, "first") is not None
    assert [job.job_id for job in await store.newest("you", 10)] == list("fedc")


# --- who runs the jobs, and how all stands ---


def triton(url: str = "t:8001", **fields: Any) -> TritonState:
    return TritonState(url=url, places=2, **fields)


async def test_what_a_worker_announces_all_see(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "ABSENT_S", 3600.0)
    here, there = await open_store(), await open_store()
    told = triton(
        reason="Triton is loading the models: ü",
        loading="ü",
        bundle="b",
        adapters=("removal", "insertion"),
        image_area=2**20,
        seconds_per_unit=1e-7,
        taken_by="x",
        running={"a": 1.5, "b": None},
    )
    await here.announce("w", [told, triton("u:8001")])
    tritons = (await there.view()).tritons
    assert [(each.worker, each.state) for each in tritons] == [("w", told), ("w", triton("u:8001"))]
    assert all(0 <= each.age_s < 60 for each in tritons)
    await here.announce("w", [triton(), triton("u:8001")])
    await here.announce("v", [triton()])
    found = (await there.view()).tritons
    assert [(each.worker, each.state.url) for each in found] == [
        ("v", "t:8001"), ("w", "t:8001"), ("w", "u:8001"),
    ]  # fmt: skip
    assert found[1].state == triton()
    await here.depart("w")
    assert [each.worker for each in (await there.view()).tritons] == ["v"]


async def test_a_worker_that_says_nothing_more_is_not_there(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.announce("w", [triton()])
    monkeypatch.setattr(transactions, "ABSENT_S", 0.05)
    async with asyncio.timeout(30):
        while (await store.view()).tritons:
            await asyncio.sleep(0.02)
    await store.announce("w", [triton()])
    monkeypatch.setattr(transactions, "ABSENT_S", 3600.0)
    assert (await store.view()).tritons
    # And its row goes once another one announces itself.
    monkeypatch.setattr(transactions, "FORGET_WORKER_S", -1)
    await store.announce("w", [triton()])
    assert not (await store.view()).tritons


async def test_a_view_has_every_job_that_has_not_ended(store: JobStore) -> None:
    for job_id in "abcd":
        await created(store, job_id, owner=owner(job_id))
    for worker in ("v", "w"):
        await claimed(store, worker)
    claim = await claimed(store)
    await store.end(claim, 2, event("cancelled"))
    view = await store.view()
    assert [job.job_id for job in view.waiting] == ["d"]
    assert [(job.job_id, job.owner, job.worker, job.turn) for job in view.running] == [
        ("a", "a", "v", 1), ("b", "b", "w", 2),
    ]  # fmt: skip
    assert view.running[0].last == event("queued")


async def test_one_who_was_started_anew_takes_back_what_its_former_self_had(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await open_store(), await open_store()
    monkeypatch.setattr(transactions, "FORMER_S", 3600.0)
    for job_id in "abcd":
        await created(here, job_id)
    lost, other = await claimed(here, "me/1"), await claimed(here, "me:too/1")
    await here.announce("me/1", [triton()])
    # As long as it may live, nothing of it is touched.
    assert await there.take_back("me/", "me/2") == []
    monkeypatch.setattr(transactions, "FORMER_S", -1)
    mine = await claimed(there, "me/2")
    assert ids(await there.take_back("me/", "me/2")) == ["a"]
    assert await there.take_back("me/", "me/2") == []
    assert not await here.append(lost, 2, step(1))  # if it lives after all
    assert await there.append(mine, 2, step(1))
    assert await here.append(other, 2, step(1))
    view = await there.view()
    assert [job.job_id for job in view.waiting] == ["a", "d"]
    assert view.tritons == []
    # It counts as an attempt.
    again = await claimed(here, "me/1")
    assert (again.job_id, again.attempt) == ("a", 2)
    assert ids(await there.take_back("me/", "me/2")) == ["a"]
    assert (await there.last("a"))[1].error == LOST_TEXT


async def test_one_that_never_announced_itself_is_taken_back_from(store: JobStore) -> None:
    await created(store)
    await claimed(store, "me/1")
    assert ids(await store.take_back("me/", "me/2")) == ["a"]


# --- hints ---


async def test_each_hint_comes_where_it_concerns_somebody(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await open_store(), await open_store()
    monkeypatch.setattr(sql_store, "LOOK_S", 3600.0)

    async def heard(hint: asyncio.Event, act: Callable[[], Awaitable[object]]) -> None:
        """Act until a process hears of it: PostgreSQL's ear may not have begun to listen."""
        hint.clear()
        async with asyncio.timeout(60):
            while not hint.is_set():
                await act()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await hint.wait()

    async def cancel() -> None:
        await there.ask_cancel("a")
        assert not await there.end_waiting("a", JobStatus.CANCELLED, "")

    for listener in (here, there):
        with listener.work() as work, listener.changes() as changes, listener.cancels() as cancels:
            await heard(changes, lambda: there.announce("w", [triton()]))
            assert not work.is_set()
            await heard(work, lambda: created(there, str(uuid.uuid4())))
            assert not cancels.is_set()
            await created(there, "a")
            while (await there.view()).waiting:
                await claimed(there)
            await heard(cancels, cancel)


async def test_what_changes_nothing_tells_nobody(store: JobStore) -> None:
    await created(store)
    claim = await claimed(store)
    with store.work() as work, store.changes() as changes:
        assert await store.claim("w", TYPES, LEASE_S) is None
        assert await reaped(store) == []
        assert await store.take_back("w/", "w/1") == []
        await store.renew([claim], LEASE_S)
        assert not work.is_set()
        assert not changes.is_set()
