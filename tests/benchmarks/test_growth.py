"""The copies in a store that is measured are jobs like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import growth
from frontend.domain.jobs import JobStatus
from frontend.jobs import transactions
from frontend.jobs.statements import row
from frontend.jobs.store import StoredBlob

if TYPE_CHECKING:
    from pathlib import Path

JOBS = 30


async def test_every_copy_is_a_finished_job_with_events_and_blobs(tmp_path: Path) -> None:
    async with growth.in_file(tmp_path / "jobs.db") as place:
        await growth.fill(place, JOBS)
        listed = await place.store.newest(growth.OWNER.name, 2 * JOBS)
        assert [job.number for job in listed] == list(range(JOBS, 0, -1))
        assert len({job.job_id for job in listed}) == JOBS
        first = await place.store.read(listed[-1].job_id)
        assert first[-1][1].status is JobStatus.DONE
        for job in listed:
            assert await place.store.read(job.job_id) == first
            for name in ("original", "image", "info"):
                assert await StoredBlob(place.store, job.job_id, name).size() >= 500
        finished = await place.store.driver.read(row("finished_bytes"))
        expired = await place.store.driver.read(transactions.expired(-3600))
        assert finished is not None
        assert finished["bytes"] > JOBS * 3500
        assert len(expired) == transactions.FORGET_AT_ONCE


async def test_a_store_without_copies_has_one_job(tmp_path: Path) -> None:
    async with growth.in_file(tmp_path / "jobs.db") as place:
        await growth.fill(place, 1)
        assert len(await place.store.newest(growth.OWNER.name, 2)) == 1


async def test_all_that_is_forgotten_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with growth.in_file(path) as place:
        await growth.fill(place, JOBS)
    before, *_, after = await growth.expiry(path)
    assert before["file_mb"] > after["file_mb"] > 0
    async with growth.in_file(path) as place:
        assert await place.store.newest(growth.OWNER.name, 1) == []
        finished = await place.store.driver.read(row("finished_bytes"))
        assert finished is not None
        assert finished["bytes"] == 0
