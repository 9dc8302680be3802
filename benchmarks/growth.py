"""Owns measuring what finished jobs cost: the time of each call of the store, and the file's bytes.

Each number of finished jobs is a store of its own. Their rows are those that one edit of four steps
has left, copied by SQL with other ids. The calls are the store's own, without HTTP: only the
store's part may grow with its rows. SQLite has no statistics, as in a server. PostgreSQL has some,
which its autovacuum makes within a minute.
"""

import asyncio
import contextlib
import math
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from matplotlib.axes import Axes

from benchmarks.report import summary
from frontend.domain.edits import EditParams, EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.owners import Limits, Owner
from frontend.jobs import places, transactions
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.store import Claim, NewJob
from frontend.jobs.transactions import Bounds
from tests.fakes import postgres

T = TypeVar("T")

KEPT_S = 10.0**9
BOUNDS = Bounds(bytes=2**50, waiting=100)
OWNER = Owner("address:127.0.0.1", Limits(max_waiting=100, max_bytes=2**40, max_running=2))
WORKER, LEASE_S = "benchmark", 60.0
STEPS = 4
PAGE = 11  # as GET /api/generate?limit=10 asks for, so that no store has fewer jobs
ORIGINAL, RESULT = bytes(1000), EditResult(image=bytes(2000), info=b"{}" + b" " * 500)
NOT_INSTALLED = "not measured: PostgreSQL is not installed"
# An id of its own for each copy, and far from its neighbours': an odd factor maps the numbers
# below 2**32 onto themselves.
_SCATTER, _RANGE = 2654435761, 2**32


@dataclass(frozen=True)
class Place:
    """A store, and the way to its tables."""

    store: SqlStore
    script: Callable[[str], Awaitable[None]]
    """Runs statements of SQL in one transaction, and leaves all as after some minutes of rest."""


async def measure(*, sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure calls of stores with so many finished jobs each, by turns, and the file's bytes.

    Returns:
        Of SQLite and of PostgreSQL: `ms`: milliseconds of each call by the number of finished jobs.
        `most_by_fewest`: the call's time with the most finished jobs by that with the fewest, in
        one round; the median of all rounds. `file` is of the largest file of SQLite: MB of the file
        and of its log, before and after all jobs have expired.
    """
    found: dict[str, Any] = {"rounds": rounds, "rows_of_a_job": 1 + len(_LOG) + 3}
    with tempfile.TemporaryDirectory() as folder:
        files = {size: Path(folder) / str(size) / places.FILE for size in sizes}
        found["SQLite"] = await _calls([in_file(file) for file in files.values()], sizes, rounds)
        found["file"] = await expiry(files[max(sizes)])
    if not postgres.installed():
        return found | {"PostgreSQL": NOT_INSTALLED}
    with postgres.PostgresServer() as server:
        made = [_in_database(server.new_database()) for _ in sizes]
        return found | {"PostgreSQL": await _calls(made, sizes, rounds)}


# --- the stores ---


@contextlib.asynccontextmanager
async def in_file(path: Path) -> AsyncIterator[Place]:
    """Open a store in a file of SQLite, whose folder is made if it is missing."""

    def script(sql: str) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(sql)
            # Its log would stay as long as this made it.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    store = SqlStore(SqliteDriver(path), BOUNDS, KEPT_S)
    try:
        yield Place(store, lambda sql: asyncio.to_thread(script, sql))
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _in_database(url: str) -> AsyncIterator[Place]:
    async def script(sql: str) -> None:
        connection = await asyncpg.connect(url)
        # Every copy of an event has its job, and to look for each takes longest.
        await connection.execute(f"SET session_replication_role = replica; {sql}")
        await connection.execute("VACUUM ANALYZE")
        await connection.close()

    store = SqlStore(await PostgresDriver.open(url), BOUNDS, KEPT_S)
    try:
        yield Place(store, script)
    finally:
        await store.close()


# --- the rows ---


def _event(status: JobStatus, step: int = 0, stage: Stage | None = None) -> JobEvent:
    return JobEvent(
        status=status,
        total_steps=STEPS,
        current_step=step,
        progress=0.9 * step / STEPS if status is not JobStatus.DONE else 1.0,
        stage=stage,
        size=(1024, 1024),
        computed_sizes=((1024, 1024),),
        eta_seconds=4.0,
        at=time.time(),
    )


_LOG = (
    _event(JobStatus.QUEUED),
    *(
        _event(JobStatus.PROCESSING, stage=stage)
        for stage in (Stage.LOADING, Stage.CONDITIONING, Stage.ENCODING)
    ),
    *(_event(JobStatus.PROCESSING, step, Stage.DENOISING) for step in range(1, STEPS + 1)),
    _event(JobStatus.PROCESSING, STEPS, Stage.DECODING),
    _event(JobStatus.DONE, STEPS, Stage.DONE),
)


def _new_job() -> NewJob:
    params = EditParams(
        prompt="remove the object",
        image=bytes(1000),
        task_type="removal",
        num_inference_steps=STEPS,
        seed=1,
    )
    return NewJob(
        job_id=str(uuid.uuid4()), params=params, original=ORIGINAL, event=_LOG[0], owner=OWNER
    )


async def fill(place: Place, jobs: int) -> None:
    """Bring a job to its end in an empty store, and copy its rows until there are so many jobs."""
    store, new = place.store, _new_job()
    await store.create(new)
    claim = await store.claim(WORKER, ["removal"], LEASE_S)
    assert claim is not None, "it is the only job"
    for seq, event in enumerate(_LOG[1:-1], 2):
        await store.append(claim, seq, event)
    await store.end(claim, len(_LOG), _LOG[-1], RESULT)
    await place.script(copies(new.job_id, jobs - 1))


def copies(task_id: str, count: int) -> str:
    """Return the SQL, for either database, that copies a finished job so many times.

    The copies end one second after the other, the last one now.
    """
    numbers = f"""WITH RECURSIVE numbers (n) AS (
        SELECT CAST(1 AS BIGINT) WHERE {count} > 0
        UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"""
    new_id = f"CAST(n * {_SCATTER} % {_RANGE} AS TEXT) || substr(task_id, 9)"
    earlier = f"- ({count} - n)"
    columns = {
        "jobs": {
            "task_id": new_id,
            "turn": "turn + n",
            "created_at": f"created_at {earlier}",
            "ended_at": f"ended_at {earlier}",
        }
        | dict.fromkeys(
            ("owner", "max_running", "task_type", "params", "max_attempts", "status", "last_seq")
        )
        | dict.fromkeys(("bytes", "input_bytes", "attempt")),
        "events": {"task_id": new_id} | dict.fromkeys(("seq", "data", "preview")),
        "blobs": {"task_id": new_id, "put_at": f"put_at {earlier}"}
        | dict.fromkeys(("name", "part", "data")),
    }
    inserts = [
        f"""{numbers} INSERT INTO {table} ({", ".join(values)})
        SELECT {", ".join(value or name for name, value in values.items())}
        FROM numbers, {table} WHERE task_id = '{task_id}' ORDER BY n"""
        for table, values in columns.items()
    ]
    more = f"{count} * (SELECT bytes FROM jobs WHERE task_id = '{task_id}')"
    sums = [f"UPDATE {table} SET bytes = bytes + {more}" for table in ("finished", "finished_of")]
    return ";\n".join(["BEGIN", *inserts, *sums, "COMMIT"])


# --- the calls ---


async def _calls(
    made: Sequence[contextlib.AbstractAsyncContextManager[Place]],
    sizes: Sequence[int],
    rounds: int,
) -> dict[str, Any]:
    found: dict[str, dict[int, list[float]]] = {}
    rng = random.Random(0)
    async with contextlib.AsyncExitStack() as stack:
        turns = []
        for each, size in zip(made, sizes, strict=True):
            place = await stack.enter_async_context(each)
            await fill(place, size)
            known = await _some(place.store, size)
            await _timed_calls(place.store, known[0])  # warm
            turns.append((place.store, size, known))
        for number in range(rounds):
            for store, size, known in turns if number % 2 else reversed(turns):
                for call, seconds in (await _timed_calls(store, rng.choice(known))).items():
                    found.setdefault(call, {}).setdefault(size, []).append(1000 * seconds)
    return {
        "ms": {
            call: {f"{size:,} jobs": summary(by_jobs[size]) for size in sizes}
            for call, by_jobs in found.items()
        },
        "most_by_fewest": {call: grown(by_jobs) for call, by_jobs in found.items()},
    }


async def _some(store: SqlStore, jobs: int) -> list[str]:
    """Return ids of jobs from all over a store.

    By pages of the usual size: PostgreSQL plans a statement by what it was asked for before.
    """
    found = set()
    for part in range(1, 21):
        before = 1 + math.ceil(part / 20 * jobs)
        found |= {job.job_id for job in await store.newest(OWNER.name, PAGE, before)}
    return sorted(found)


async def _timed_calls(store: SqlStore, known: str) -> dict[str, float]:
    """Return the seconds of each call for a new job, which is forgotten then, and a known one."""
    taken: dict[str, float] = {}

    async def timed(call: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        outcome = await work
        taken[call] = time.perf_counter() - started
        return outcome

    new = _new_job()
    await timed("submit", store.create(new))
    claim = await timed("claim", store.claim(WORKER, ["removal"], LEASE_S))
    assert isinstance(claim, Claim), "the job waits"
    await timed("event", store.append(claim, 2, _LOG[1]))
    await timed("status", store.last(known))
    await timed("first page", store.newest(OWNER.name, PAGE))
    await timed(
        "first page of one status", store.newest(OWNER.name, PAGE, statuses=[JobStatus.DONE])
    )
    await timed("who waits and runs", store.view())
    await timed("end", store.end(claim, 3, _LOG[-1], RESULT))
    await store.driver.write(transactions.forget([new.job_id]))
    return taken


def grown(by_jobs: dict[int, list[float]]) -> float:
    """Return the median of each round's time with the most jobs by that with the fewest.

    Args:
        by_jobs: the times of all rounds by the number of finished jobs.
    """
    fewest, most = by_jobs[min(by_jobs)], by_jobs[max(by_jobs)]
    return round(statistics.median(b / a for a, b in zip(fewest, most, strict=True)), 3)


# --- the file's bytes ---


async def expiry(path: Path) -> list[dict[str, Any]]:
    """Let all jobs of a store in a file expire; return the MB of its files at each moment."""
    moments: list[dict[str, Any]] = []
    started = time.perf_counter()

    async def note(moment: str) -> None:
        moments.append(
            {
                "moment": moment,
                "file_mb": megabytes(path),
                "log_mb": megabytes(path.with_name(f"{path.name}-wal")),
                "after_s": round(time.perf_counter() - started, 1),
            }
        )

    await note("all jobs are there")
    driver = SqliteDriver(path)
    # None is kept for longer than a moment.
    store = SqlStore(driver, BOUNDS, ttl_s=0.001)
    forgetting = shrinking = 0
    while await store.newest(OWNER.name, 1):
        await store.sweep()
        forgetting += 1
    await note(f"{forgetting} sweeps have forgotten them")
    while free_pages(path):
        await store.sweep()
        shrinking += 1
    await note(f"{shrinking} more have shrunk the file")
    await store.close()
    await note("the server has stopped")
    return moments


def free_pages(path: Path) -> int:
    """Return how many pages of an SQLite file hold nothing."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(count)


def megabytes(path: Path) -> float:
    """Return the size of a file in MB; 0 if there is none."""
    return round(path.stat().st_size / 1e6, 2) if path.exists() else 0.0


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw each call's median by the number of finished jobs; a call that does not grow is flat."""
    for store, style in (("SQLite", "o-"), ("PostgreSQL", "s--")):
        if isinstance(results[store], dict):
            for number, (call, by_jobs) in enumerate(results[store]["ms"].items()):
                jobs = [int(label.partition(" ")[0].replace(",", "")) for label in by_jobs]
                medians = [times["median"] for times in by_jobs.values()]
                axes.plot(jobs, medians, style, color=f"C{number}", label=f"{call}, {store}")
    axes.set(
        title="Calls of the store, by the finished jobs in it",
        xlabel="finished jobs",
        ylabel="milliseconds, median",
        xscale="log",
        yscale="log",
    )
    axes.legend(fontsize="xx-small", loc="center left", bbox_to_anchor=(1, 0.5))
