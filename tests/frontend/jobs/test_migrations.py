"""A database that an older version of this program has written, opened by this one."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import asyncpg
import pytest

from frontend.domain.tritons import TritonState
from frontend.jobs import statements
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import SCHEMA_VERSION
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.samples import claimed, created, done, params

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.jobs.driver import Driver
    from tests.fakes.postgres import PostgresServer

OLD = range(1, SCHEMA_VERSION)
# As version 1 wrote it.
JOB = """
INSERT INTO jobs (task_id, owner, task_type, params, max_attempts, status, last_seq, bytes,
  input_bytes, created_at)
VALUES ('old', 'o', 'removal', '{}', 2, 'queued', 1, 1, 0, 0);
INSERT INTO events (task_id, seq, data, preview)
VALUES ('old', 1, '{"status":"queued","total_steps":4,"stage":null,"size":null,
"computed_sizes":null,"at":0}', x'');
"""


def scripts(dialect: str, version: int) -> list[str]:
    """Return what made the tables of an older version."""
    return [
        *statements.scripts(dialect, 0)[:version],
        f"INSERT INTO schema_version VALUES ({version});",
        JOB if dialect == "sqlite" else JOB.replace("x''", "''"),
    ]


async def goes_on(driver: Driver) -> None:
    """Assert that the old job is there and that all works beside it, and close."""
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await created(store)
    assert [job.job_id for job in (await store.view()).waiting] == ["old", "a"]
    claim = await claimed(store)
    assert claim.job_id == "old"
    assert await done(store, claim)
    await store.announce("w", [])
    await store.close()


async def test_what_a_newer_process_says_more_is_left_out(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "jobs.db")
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await created(store)
    await store.announce("w", [TritonState(url="triton:8001", places=1)])
    for table, column in (("events", "data"), ("workers", "state")):
        sql = f"UPDATE {table} SET {column} = json_set({column}, '$.later', 1)"
        driver._rows.connection.execute(sql)
    view = await store.view()
    assert [job.last.status for job in view.waiting] == ["queued"]
    assert [each.state.url for each in view.tritons] == ["triton:8001"]
    await store.close()


async def test_an_edit_that_asks_for_nothing_newer_is_run(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "jobs.db")
    store = SqlStore(driver, Bounds(10**7, 10), 60)
    await created(store)
    sql = "UPDATE jobs SET params = json_set(params, '$.fields.later', json(?))"
    driver._rows.connection.execute(sql, ("null",))
    assert await store.params("a") == params()
    driver._rows.connection.execute(sql, ("true",))
    with pytest.raises(TypeError, match="later"):
        await store.params("a")
    await store.close()


@pytest.mark.parametrize("version", OLD)
async def test_a_file_of_an_older_version_goes_on(tmp_path: Path, version: int) -> None:
    file = tmp_path / "jobs.db"
    connection = sqlite3.connect(file)
    for script in scripts("sqlite", version):
        connection.executescript(script)
    connection.close()
    for _ in range(2):
        driver = SqliteDriver(file)
        found = driver._rows.connection.execute("SELECT version FROM schema_version").fetchall()
        assert [tuple(each) for each in found] == [(SCHEMA_VERSION,)]
        await driver.close()
    await goes_on(SqliteDriver(file))


@pytest.mark.parametrize("version", OLD)
async def test_a_database_of_an_older_version_goes_on(
    postgres: PostgresServer, version: int
) -> None:
    url = postgres.new_database()
    connection = await asyncpg.connect(url)
    for script in scripts("postgres", version):
        await connection.execute(statements.for_postgres(script))
    await (await PostgresDriver.open(url)).close()
    found = await connection.fetch("SELECT version FROM schema_version")
    assert [tuple(each) for each in found] == [(SCHEMA_VERSION,)]
    await connection.close()
    await goes_on(await PostgresDriver.open(url))
