"""What only SQLite's driver does: settings of the file, threads, space given back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from frontend.domain.edits import EditResult
from frontend.domain.jobs import JobStatus
from frontend.errors import JobNotFoundError, StoreAwayError, UnavailableError
from frontend.jobs import sqlite, sweeping, transactions
from frontend.jobs.blobs import DISK_RESERVE
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import row, rows
from frontend.jobs.transactions import Bounds
from tests.fakes.owners import owner
from tests.frontend.jobs.samples import claimed, created, done, original, reaped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from frontend.jobs.statements import Steps


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    opened = SqliteDriver(tmp_path / "jobs.db")
    yield opened
    await opened.close()


async def test_a_commit_is_on_the_disk(driver: SqliteDriver) -> None:
    modes = {
        lane: [
            driver_lane.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")
        ]
        for lane, driver_lane in (("rows", driver._rows), ("parts", driver._parts))
    }
    assert modes == {"rows": ["wal", 2, 1, 2], "parts": ["wal", 1, 1, 2]}


async def test_the_loop_goes_on_while_another_process_writes(
    driver: SqliteDriver, tmp_path: Path
) -> None:
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    creating = asyncio.create_task(created(store))
    ticks = 0
    while ticks < 20:
        await asyncio.sleep(0.01)
        ticks += 1
        with pytest.raises(JobNotFoundError):
            await store.last("a")
    assert not creating.done()
    other.execute("COMMIT")
    other.close()
    assert await creating == "a"


async def test_a_file_that_stays_locked_is_an_absent_store(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAwayError, match="locked"):
        await created(store)
    other.execute("COMMIT")
    other.close()
    assert await created(store) == "a"


@contextlib.contextmanager
def kept_out(
    path: Path, monkeypatch: pytest.MonkeyPatch, looks: int = 3, lock: str = "IMMEDIATE"
) -> Iterator[None]:
    """Lock a file, until somebody has looked so often whether it still is."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute(f"BEGIN {lock}")
    with at_look(looks, monkeypatch, lambda: other.execute("COMMIT")):
        yield
    other.close()


@contextlib.contextmanager
def at_look(
    number: int, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> Iterator[None]:
    """Call a function before somebody who is kept out looks again for the `number`th time."""
    pauses = itertools.count(1)

    def pause(seconds: float) -> None:
        if next(pauses) == number:
            call()
        time.sleep(seconds)

    monkeypatch.setattr(sqlite, "time", SimpleNamespace(**vars(time) | {"sleep": pause}))
    yield
    assert next(pauses) > number, "nobody has waited"


async def test_a_writer_finds_the_gaps_of_another_process(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 5.0)
    # SQLite itself, which in the end looks every 100 ms, would be half as far by then.
    with kept_out(tmp_path / "jobs.db", monkeypatch, looks=100):
        await driver.write(rows("count_finished", 1))


@pytest.mark.parametrize(
    ("new", "lock"), [(True, "IMMEDIATE"), (True, "EXCLUSIVE"), (False, "IMMEDIATE")]
)
async def test_a_file_is_opened_once_another_process_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool, lock: str
) -> None:
    path = tmp_path / "jobs.db"
    if not new:
        await SqliteDriver(path).close()
    with kept_out(path, monkeypatch, lock=lock):
        await SqliteDriver(path).close()


@pytest.mark.parametrize("statement", ["PRAGMA incremental_vacuum(1)", "VACUUM"])
async def test_space_is_given_back_once_another_process_lets_it(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(sqlite, "SHRINK_S", 0.0)
    await driver.write_part(rows("put_part", "a", "original", 0, bytes(10**6)))
    await driver.write(transactions.forget(["a"]))
    held, locked = contextlib.ExitStack(), threading.Event()
    connection = driver._parts.connection

    def lock(sql: str) -> None:
        if sql == statement:
            connection.set_trace_callback(None)
            held.enter_context(kept_out(tmp_path / "jobs.db", monkeypatch))
            locked.set()

    with held:
        connection.set_trace_callback(lock)
        await driver.shrink(freed=True)
    assert locked.is_set()
    assert file_size(tmp_path / "jobs.db") < 10**6


HOLD_RECOVERY = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)  # those of writing, checkpoints and recovery
    index.write(bytes(96))  # both copies of the header
    index.flush()
    print(flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def recovering(path: Path) -> Iterator[Callable[[], object]]:
    """Have another process hold what one holds that recovers; yield what makes it let go."""
    command = [sys.executable, "-c", HOLD_RECOVERY, f"{path}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.stdin.close


async def test_a_reader_waits_while_another_process_recovers_what_a_killed_one_left(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Known tables are not looked for in a file that cannot be read.
    await driver.read(row("finished_bytes"))
    with recovering(tmp_path / "jobs.db") as stop, at_look(3, monkeypatch, stop):
        assert await driver.read(row("finished_bytes")) is not None


async def test_a_part_waits_for_a_slow_row_and_needs_no_luck(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Steps[None]:
        yield from rows("count_finished", 1)
        begun.set()
        go_on.wait(60)

    row_written = driver.write(slow())
    assert await asyncio.to_thread(begun.wait, 60)
    part_written = driver.write_part(rows("put_part", "a", "original", 0, b"picture"))
    await asyncio.wait([part_written], timeout=0.1)
    go_on.set()
    await asyncio.gather(row_written, part_written)


async def test_what_a_job_costs_does_not_grow_with_the_finished_ones(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "ORPHANS_EACH_S", 0.0)
    store = SqlStore(driver, Bounds(10**9, 100), 10**6)
    worked = itertools.count()
    for lane in (driver._rows, driver._parts, driver._reads):
        lane.connection.set_progress_handler(lambda: next(worked) < 0, 1)

    async def cost(job_id: str) -> int:
        """Return the steps of SQLite's machine for one job and all that looks at it."""
        before = next(worked)
        await created(store, job_id, owner=owner("o", max_running=2))
        assert [job.job_id for job in (await store.view()).waiting] == [job_id]
        await store.announce("w", [])
        claim = await claimed(store)
        assert [job.job_id for job in (await store.view()).running] == [job_id]
        await store.renew([claim], 60)
        assert await done(store, claim)
        await store.newest("o", 1)
        await store.newest("o", 1, statuses=[JobStatus.DONE])
        await store.take_back("w", "w2")
        await reaped(store)
        await store.sweep()
        return next(worked) - before

    await cost("first")  # it looks at every blob
    alone = await cost("alone")
    connection = driver._rows.connection
    connection.execute("BEGIN")
    for table, columns in (
        (
            "jobs",
            "task_id, owner, task_type, params, max_attempts, status, last_seq, bytes, input_bytes,"
            " turn, created_at, ended_at",
        ),
        ("events", "task_id, seq, data, preview"),
        ("blobs", "task_id, name, part, data, put_at"),
    ):
        copied = columns.replace("task_id", "task_id || $1", 1)
        for number in range(1000):
            sql = f"INSERT INTO {table} ({columns}) SELECT {copied} FROM {table} WHERE task_id = $2"
            connection.execute(sql, {"1": f"-{number}", "2": "alone"})
    connection.execute("UPDATE blobs SET put_at = 0")
    connection.execute("COMMIT")
    assert await cost("last") < 1.2 * alone


async def test_a_transaction_that_fails_changes_nothing(driver: SqliteDriver) -> None:
    def broken() -> Steps[None]:
        yield from rows("count_finished", 5)
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        await driver.write(broken())
    found = await driver.read(row("finished_bytes"))
    assert found is not None
    assert found["bytes"] == 0


def file_size(path: Path) -> int:
    """Return the bytes of a file of SQLite, once all is in it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


async def expired_jobs(driver: SqliteDriver) -> SqlStore:
    """Return a store whose three finished jobs, of 12 MB, are over; a fourth one waits."""
    store = SqlStore(driver, Bounds(10**8, 10), ttl_s=0)
    for number in range(3):
        await created(store, str(number), image=bytes(2 * 10**6))
        assert await done(store, await claimed(store), EditResult(bytes(4 * 10**6), b"{}"))
    await created(store, "waits")
    await asyncio.sleep(0.01)  # the jobs have to be over by the store's clock
    return store


async def test_the_file_shrinks_once_its_jobs_have_expired(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LIVE_PAGES_AT_ONCE", 0)
    monkeypatch.setattr(sqlite, "SHRINK_S", 0.0)
    store = await expired_jobs(driver)
    assert (before := file_size(tmp_path / "jobs.db")) > 12 * 10**6
    await store.sweep()
    # One page, because no time is left for another.
    assert before - 4 * 4096 < file_size(tmp_path / "jobs.db") < before
    monkeypatch.setattr(sqlite, "SHRINK_S", 60.0)
    await store.sweep()
    assert file_size(tmp_path / "jobs.db") < 10**6
    for table, count in (("jobs", 1), ("events", 1), ("blobs", 2)):
        found = driver._rows.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert found[0] == count
    finished = await driver.read(row("finished_bytes"))
    assert finished is not None
    assert finished["bytes"] == 0


async def test_a_file_with_little_left_in_it_shrinks_in_one_go(
    driver: SqliteDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SHRINK_S", 0.0)
    store = await expired_jobs(driver)
    await store.sweep()
    assert file_size(tmp_path / "jobs.db") < 10**6
    assert await original(store, "waits") == b"original"
    mode = driver._rows.connection.execute("PRAGMA auto_vacuum").fetchone()
    assert mode[0] == 2  # it can still give back pages one by one
    assert await done(store, await claimed(store))


async def test_it_listens_more_often_while_somebody_follows_or_runs_a_job(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Callable[[], bool]] = []
    monkeypatch.setattr(driver, "listen", lambda _, busy: given.append(busy))
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    [busy] = given
    with store.work(), store.changes(), store.cancels():
        await created(store)
        assert not busy()
        claim = await claimed(store)
        assert busy()
        await store.renew([claim], 60)
        assert busy()
        following = asyncio.create_task(store.read("a", after=1, wait_s=60))
        await asyncio.sleep(0)
        await store.renew([], 60)
        assert busy()
        assert await done(store, claim)
        await following
        assert not busy()


async def test_to_delete_a_result_is_not_to_write_it_once_more(
    driver: SqliteDriver, tmp_path: Path
) -> None:
    store = SqlStore(driver, Bounds(10**8, 10), ttl_s=0)
    await created(store)
    assert await done(store, await claimed(store), EditResult(bytes(8 * 10**6), b"{}"))
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    await driver.write(transactions.forget(["a"]))
    assert (tmp_path / "jobs.db-wal").stat().st_size < 10**6


async def test_what_was_put_for_a_job_that_never_came_is_swept(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await driver.write_part(rows("put_part", "lost", "original", 0, b"picture"))
    await store.sweep()
    assert len(await driver.read(rows("piece", "lost", "original", 0, 1, 1))) == 1
    monkeypatch.setattr(sweeping, "ORPHAN_S", -1)
    monkeypatch.setattr(sweeping, "ORPHANS_EACH_S", 0.0)
    store._orphans._due = -math.inf  # as if it had not looked for any yet
    await created(store)
    await store.sweep()
    assert await driver.read(rows("piece", "lost", "original", 0, 1, 1)) == []
    await driver.write_part(rows("put_part", "lost too", "original", 0, b"picture"))
    await store.sweep()
    assert await driver.read(rows("piece", "lost too", "original", 0, 1, 1)) == []
    assert await original(store, "a") == b"original"


async def test_a_disk_that_is_nearly_full_takes_no_job_but_finishes_those_it_has(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await created(store)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=DISK_RESERVE))
    with pytest.raises(UnavailableError, match="nearly full"):
        await created(store, "b")
    assert await driver.read(rows("piece", "b", "original", 0, 1, 1)) == []
    assert await done(store, await claimed(store))


async def test_a_full_disk_is_called_full(driver: SqliteDriver) -> None:
    connection = driver._parts.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreAwayError, match="disk is full"):
        await driver.write_part(rows("put_part", "a", "original", 0, bytes(10**5)))
    connection.execute("PRAGMA max_page_count = 100000")
    await driver.write_part(rows("put_part", "a", "original", 0, bytes(10**5)))


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away_takes_no_job(
    driver: SqliteDriver, tmp_path: Path, replaced: bool
) -> None:
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await created(store)
    (tmp_path / "jobs.db").rename(tmp_path / "taken.db")
    if replaced:
        (tmp_path / "jobs.db").touch()
    gone = r"jobs\.db was removed or replaced"
    with pytest.raises(StoreAwayError, match=gone):
        await created(store, "b")
    with pytest.raises(StoreAwayError, match=gone):
        await store.ask_cancel("a")
    assert (await store.last("a"))[1].status == "queued"
    (tmp_path / "taken.db").rename(tmp_path / "jobs.db")
    assert await created(store, "b") == "b"
