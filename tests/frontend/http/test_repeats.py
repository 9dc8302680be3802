from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from frontend.domain.edits import EditParams
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import InvalidInputError, UnavailableError
from frontend.http import repeats
from frontend.http.repeats import Repeats
from frontend.jobs.memory import MemoryJobStore
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BODY = b"{}"
PARAMS = EditParams(prompt="", image=b"image", task_type="removal", num_inference_steps=4, seed=1)


def opened() -> tuple[Repeats, Callable[[str], Callable[[], Coroutine[None, None, str]]]]:
    """Repeats over an empty store, and what makes a submission of a job by its id."""
    jobs = MemoryJobStore(2**20, 60)

    def job(job_id: str) -> Callable[[], Coroutine[None, None, str]]:
        async def submit() -> str:
            await jobs.create(
                job_id,
                PARAMS,
                b"",
                JobEvent(status=JobStatus.QUEUED, total_steps=4, at=0),
                owner(),
            )
            return job_id

        return submit

    return Repeats(jobs), job


# Comfy-Org/ComfyUI#16204: a client that left before its answer tries again
async def test_a_submission_goes_on_without_its_client_and_is_found_again() -> None:
    found, job = opened()
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await gate.wait()
        return await job("first")()

    client = asyncio.create_task(found.submit("me", "key", BODY, slow))
    await begun.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    again = asyncio.create_task(found.submit("me", "key", BODY, job("second")))
    gate.set()
    assert await again == "first"
    with pytest.raises(InvalidInputError, match="Idempotency-Key"):
        await found.submit("me", "key", b"other", job("third"))


async def test_what_was_refused_is_tried_anew() -> None:
    found, job = opened()

    async def refused() -> str:
        raise UnavailableError("The queue is full")

    with pytest.raises(UnavailableError):
        await found.submit("me", "key", BODY, refused)
    assert await found.submit("me", "key", BODY, job("first")) == "first"


async def test_the_oldest_keys_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_KEYS", 3)
    found, job = opened()
    for number in range(4):
        await found.submit("me", str(number), BODY, job(f"job {number}"))
    assert await found.submit("me", "3", BODY, job("anew")) == "job 3"
    assert await found.submit("me", "0", BODY, job("anew")) == "anew"
