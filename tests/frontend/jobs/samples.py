"""Owns small jobs, events and results for tests of stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frontend.domain.edits import EditParams, EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.jobs.store import NewJob, StoredBlob
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.domain.owners import Owner
    from frontend.jobs.store import Claim, Entry, Freed, JobStore, Key

RESULT = EditResult(b"png" * 100, b"{}")
TYPES = ("removal", "insertion")
LEASE_S = 60.0


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
        **{"at": 0.0} | fields,
    )


def step(number: int, **fields: Any) -> JobEvent:
    return event("processing", number, number / 10, stage=Stage.DENOISING, **fields)


ME = owner("o")


async def created(
    store: JobStore, job_id: str = "a", key: Key | None = None, owner: Owner = ME, **changes: Any
) -> str:
    job = NewJob(
        job_id=job_id,
        params=params(**changes),
        original=b"original",
        event=event("queued"),
        owner=owner,
        key=key,
    )
    return (await store.create(job)).job_id


async def claimed(store: JobStore, worker: str = "w", lease_s: float = LEASE_S) -> Claim:
    claim = await store.claim(worker, TYPES, lease_s)
    assert claim is not None
    return claim


async def done(store: JobStore, claim: Claim, result: EditResult = RESULT) -> bool:
    """Take the claimed job, whose log has one entry, to its end."""
    assert await store.append(claim, 2, event("processing"))
    return await store.end(claim, 3, event("done", 4, 1.0), result)


async def reaped(store: JobStore) -> list[str]:
    """Let the jobs wait again whose leases are over now, and return their ids."""
    return ids(await store.reap(await store.beat(0)))


def ids(freed: Sequence[Freed]) -> list[str]:
    return [each.job_id for each in freed]


async def original(store: JobStore, job_id: str) -> bytes:
    return await StoredBlob(store, job_id, "original").whole()


async def result(store: JobStore, job_id: str) -> EditResult | None:
    """Return a job's result; None unless it is done."""
    _, last = await store.last(job_id)
    if last.status is not JobStatus.DONE:
        return None
    image, info = [await StoredBlob(store, job_id, name).whole() for name in ("image", "info")]
    return EditResult(image, info)


def seqs(entries: Sequence[Entry]) -> list[int]:
    return [seq for seq, _ in entries]


async def statuses(store: JobStore, job_id: str) -> list[str]:
    return [str(event.status) for _, event in await store.read(job_id)]
