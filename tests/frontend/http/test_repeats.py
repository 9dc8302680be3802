from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from frontend.domain.edits import EditParams
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import InvalidInputError, TooMuchError, UnavailableError
from frontend.http.repeats import Repeats
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.store import Key, NewJob
from frontend.jobs.submissions import Submitted
from frontend.jobs.transactions import Bounds
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

BODY = b"{}"
PARAMS = EditParams(prompt="", image=b"image", task_type="removal", num_inference_steps=4, seed=1)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(2**20, 10), 60)
    yield store
    await store.close()


def repeats(jobs: SqlStore) -> Repeats:
    return Repeats(jobs, max_bytes=10, owner_fraction=0.5)


def submission(jobs: SqlStore, job_id: str) -> Callable[[Key], Coroutine[None, None, Submitted]]:
    """What submits a job under this id, unless its key has one."""

    async def submit(key: Key) -> Submitted:
        first = JobEvent(status=JobStatus.QUEUED, total_steps=4, at=0)
        new = NewJob(
            job_id=job_id, params=PARAMS, original=b"", event=first, owner=owner("me"), key=key
        )
        return Submitted((await jobs.create(new)).job_id, first)

    return submit


async def left_behind(jobs: SqlStore, found: Repeats, body: bytes) -> asyncio.Event:
    """Submit `first` for a client that leaves; return what lets the submission go on."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(key: Key) -> Submitted:
        begun.set()
        await gate.wait()
        return await submission(jobs, "first")(key)

    client = asyncio.create_task(found.submit("me", "key", body, slow))
    await begun.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    return gate


# Comfy-Org/ComfyUI#16204: a client that left before its answer tries again
async def test_a_submission_goes_on_without_its_client_and_is_found_again(jobs: SqlStore) -> None:
    found = repeats(jobs)
    gate = await left_behind(jobs, found, BODY)
    again = asyncio.create_task(found.submit("me", "key", BODY, submission(jobs, "second")))
    gate.set()
    assert (await again).job_id == "first"
    with pytest.raises(InvalidInputError, match="Idempotency-Key"):
        await found.submit("me", "key", b"other", submission(jobs, "third"))


async def test_what_was_refused_is_tried_anew(jobs: SqlStore) -> None:
    found = repeats(jobs)

    async def refused(_: Key) -> Submitted:
        raise UnavailableError("The queue is full")

    with pytest.raises(UnavailableError):
        await found.submit("me", "key", BODY, refused)
    assert (await found.submit("me", "key", BODY, submission(jobs, "first"))).job_id == "first"


async def test_the_next_process_knows_the_keys(jobs: SqlStore, tmp_path: Path) -> None:
    assert (
        await repeats(jobs).submit("me", "key", BODY, submission(jobs, "first"))
    ).job_id == "first"
    await jobs.close()
    again = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(2**20, 10), 60)
    found = repeats(again)
    assert (await found.submit("me", "key", BODY, submission(again, "second"))).job_id == "first"
    with pytest.raises(InvalidInputError, match="Idempotency-Key"):
        await found.submit("me", "key", b"other", submission(again, "third"))
    await again.close()


async def test_bodies_whose_clients_have_left_are_bounded(jobs: SqlStore) -> None:
    found = repeats(jobs)
    gate = await left_behind(jobs, found, bytes(4))
    with pytest.raises(TooMuchError, match="bytes of submissions"):
        await found.submit("me", "other", bytes(4), submission(jobs, "second"))
    same = found.submit("me", "key", bytes(4), submission(jobs, "another"))
    again = asyncio.create_task(same)
    assert (
        await found.submit("you", "yours", bytes(4), submission(jobs, "yours"))
    ).job_id == "yours"
    gate.set()
    assert (await again).job_id == "first"
    assert (
        await found.submit("me", "other", bytes(4), submission(jobs, "second"))
    ).job_id == "second"
