"""What only PostgreSQL's driver does: wake-ups, a server that goes and comes, its schema."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg
import pytest

from frontend.errors import StoreAwayError
from frontend.jobs import postgres as postgres_module
from frontend.jobs import sql_store
from frontend.jobs.driver import StoreRefusedError
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import SCHEMA_VERSION
from frontend.jobs.transactions import Bounds
from frontend.launcher import ports
from frontend.waiting import set_within
from tests.fakes.link import Link
from tests.frontend.jobs.samples import claimed, created, done, event, seqs, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from frontend.jobs.store import Claim
    from tests.fakes.postgres import PostgresServer

PATIENCE_S = 60.0


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(await PostgresDriver.open(url), Bounds(10**7, 10), 60)
    yield store
    await store.close()


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[SqlStore]]:
    async with opened(url) as here, opened(url) as there:
        yield [here, there]


def connected(url: str) -> AbstractAsyncContextManager[asyncpg.Connection]:
    """Connect beside the stores."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()

    return connect()


async def listening(url: str, count: int) -> None:
    """Return once so many processes listen; a connection of the test before may not have ended."""
    async with asyncio.timeout(PATIENCE_S), connected(url) as connection:
        sql = """SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'
            AND application_name = current_setting('application_name')"""
        while await connection.fetchval(sql) != count:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def full_for(job_id: str, url: str) -> AsyncIterator[None]:
    """Refuse each new version of one job's row, as a disk does that is full for its page alone."""
    async with connected(url) as connection:
        await connection.execute(
            f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
            CREATE TRIGGER full_disk BEFORE UPDATE ON jobs FOR EACH ROW
              WHEN (old.task_id = '{job_id}') EXECUTE FUNCTION refuse()"""
        )
        yield
        await connection.execute("DROP TRIGGER full_disk ON jobs")


async def answers(store: SqlStore, job_id: str) -> None:
    """Return once the store can be reached."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreAwayError):
                await store.last(job_id)
                return
            await asyncio.sleep(0.02)


async def test_who_waits_is_woken_by_another_process(
    stores: list[SqlStore], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_store, "LOOK_S", 3600.0)
    here, there = stores
    await listening(url, 2)
    async with asyncio.timeout(PATIENCE_S):
        with here.work() as work:
            await created(there)
            await work.wait()
        claim = await claimed(there)
        reader = asyncio.create_task(here.read("a", 1, wait_s=3600))
        assert await there.append(claim, 2, step(1))
        assert seqs(await reader) == [2]


async def test_what_one_process_tells_the_others_hear(stores: list[SqlStore], url: str) -> None:
    here, there = stores
    heard: dict[str, list[str]] = {"here": [], "there": []}
    here.hear("kind:", heard["here"].append)
    there.hear("kind:", heard["there"].append)
    await listening(url, 2)
    await here.tell("another:", "nobody hears it")
    for text in ("a", "b:ü"):
        await here.tell("kind:", text)
    async with asyncio.timeout(PATIENCE_S):
        while len(heard["there"]) < 2:
            await asyncio.sleep(0.01)
    assert heard == {"here": [], "there": ["a", "b:ü"]}


async def test_a_killed_server_is_an_absent_store_and_loses_nothing(
    stores: list[SqlStore], url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = stores
    await created(here)
    claim = await claimed(here)
    assert await here.append(claim, 2, step(1))
    postgres.kill()
    for _ in range(2):  # with a connection that it had, and without
        for call in (here.last("a"), here.renew([claim], 60), here.append(claim, 3, step(2))):
            with pytest.raises(StoreAwayError, match=r"The job store does not answer: ."):
                await call
    postgres.start()
    await asyncio.gather(answers(here, "a"), answers(there, "a"))
    assert await here.read("a") == [(1, event("queued")), (2, step(1))]
    assert await here.append(claim, 3, step(2))
    await listening(url, 2)
    monkeypatch.setattr(sql_store, "LOOK_S", 3600.0)
    async with asyncio.timeout(PATIENCE_S):
        reader = asyncio.create_task(there.read("a", 3, wait_s=3600))
        assert await here.append(claim, 4, step(3))
        assert seqs(await reader) == [4]


async def test_no_lease_is_judged_where_a_disk_kept_its_renewal_out(
    stores: list[SqlStore], url: str
) -> None:
    here, there = stores
    await created(here)
    claim = await claimed(here, lease_s=60)
    async with full_for("a", url):
        with pytest.raises(StoreAwayError, match="DiskFullError"):
            await here.renew([claim], 60)
        await there.beat(5)  # it will be renewed for long yet
        with pytest.raises(StoreAwayError, match="DiskFullError"):
            await there.beat(60)
    await there.beat(60)
    assert await here.renew([claim], 60)


async def test_two_that_judge_leases_never_wait_for_each_other(
    stores: list[SqlStore], url: str
) -> None:
    for job_id in "abc":
        await created(stores[0], job_id)
        await claimed(stores[0], lease_s=0)
    async with connected(url) as connection, connection.transaction():
        await connection.execute("UPDATE jobs SET bytes = bytes WHERE task_id = 'b'")
        for _ in range(5):
            await asyncio.gather(*(store.beat(0) for store in stores))


def test_where_the_database_is_stays_in_the_log() -> None:
    with pytest.raises(StoreAwayError) as away, postgres_module._away():
        raise ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 5432)")
    assert away.value.detail == "The job store does not answer: ConnectionRefusedError"
    assert "192.0.2.1" in away.value.reason


async def test_who_listens_to_a_server_that_vanished_listens_anew(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "LISTEN_CHECK_S", 0.5)
    async with Link(postgres.port) as link, opened(url) as there:
        through = url.replace(f":{postgres.port}/", f":{link.port}/")
        assert through != url
        async with opened(through) as here:
            heard = asyncio.Event()
            here.hear("kind:", lambda _: heard.set())

            async def told() -> None:
                heard.clear()
                while not await set_within(heard, 0.1):
                    await there.tell("kind:", "news")

            async with asyncio.timeout(PATIENCE_S):
                await told()
                link.stand_still()
                with monkeypatch.context() as patched:
                    patched.setattr(postgres_module, "TIMEOUT_S", 0.1)
                    known = link.connections
                    while link.connections == known:  # it has given that one up
                        await asyncio.sleep(0.01)
                link.heal()
                await told()


async def test_a_statement_that_takes_too_long_is_an_absent_store(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TIMEOUT_S", 3.0)  # in which a busy machine connects
    async with opened(url) as store, connected(url) as other:
        async with other.transaction():
            await other.execute("SELECT version FROM schema_version FOR UPDATE")
            with pytest.raises(StoreAwayError, match="TimeoutError"):
                await created(store)
        monkeypatch.undo()
        assert await created(store) == "a"


@contextlib.asynccontextmanager
async def linked(url: str, postgres: PostgresServer) -> AsyncIterator[tuple[Link, SqlStore, Claim]]:
    """Open a store behind a link, with a job that it holds."""
    async with (
        Link(postgres.port) as link,
        opened(url.replace(f":{postgres.port}/", f":{link.port}/")) as store,
    ):
        await created(store)
        yield link, store, await claimed(store)


async def renewal_is_given_up(
    store: SqlStore, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(postgres_module, "TIMEOUT_S", 0.1)  # the statement has its own
        with pytest.raises(StoreAwayError, match="TimeoutError"):
            await store.renew([claim], 60)


async def test_a_renewal_on_a_link_that_swallows_all_is_given_up_before_its_statement(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(url, postgres) as (link, store, claim):
        link.stand_still()
        await renewal_is_given_up(store, claim, monkeypatch)
        assert isinstance(store.driver, PostgresDriver)
        assert store.driver._begun, "nobody waits for what says nothing"
        link.heal()
        [held] = await store.renew([claim], 60)
        assert (held.job_id, held.attempt) == (claim.job_id, claim.attempt)


async def test_a_link_that_swallows_all_connections_costs_one_renewal(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(url, postgres) as (link, store, claim):
        assert isinstance(store.driver, PostgresDriver)
        async with contextlib.AsyncExitStack() as held:  # the pool makes them as they are needed
            for _ in range(postgres_module.CONNECTIONS):
                await held.enter_async_context(store.driver._pool.acquire())
        link.swallow()
        await renewal_is_given_up(store, claim, monkeypatch)
        assert await store.renew([claim], 60)
        link.heal()  # what was swallowed can be closed


async def test_what_was_begun_goes_on_without_its_caller(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TIMEOUT_S", PATIENCE_S)  # it waits for the test
    async with opened(url) as here, opened(url) as there, connected(url) as other:
        async with other.transaction():
            await other.execute("SELECT version FROM schema_version FOR UPDATE")
            creating = asyncio.create_task(created(here))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            async with asyncio.timeout(PATIENCE_S):
                while not await other.fetchval(blocked):
                    await asyncio.sleep(0.01)
                    await other.execute("SELECT pg_stat_clear_snapshot()")
            creating.cancel()
            closing = asyncio.create_task(here.close())
        await closing
        assert (await there.last("a"))[0] == 1


async def test_many_processes_make_the_tables_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "TIMEOUT_S", PATIENCE_S)  # each waits for all before it
    drivers = await asyncio.gather(*(PostgresDriver.open(url) for _ in range(8)))
    for driver in drivers:
        await driver.close()
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM schema_version") == 1
        assert await connection.fetchval("SELECT count(*) FROM finished") == 1


async def test_what_a_newer_program_has_written_is_refused(url: str) -> None:
    await (await PostgresDriver.open(url)).close()
    async with connected(url) as connection:
        await connection.execute("UPDATE schema_version SET version = version + 1")
    with pytest.raises(StoreRefusedError, match=f"newer.*schema {SCHEMA_VERSION + 1}"):
        await PostgresDriver.open(url)


async def test_a_refusal_tells_no_password(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [closed] = ports.free(1)
    # As in the frontend's image, where nobody has put a certificate.
    monkeypatch.setenv("HOME", str(tmp_path))
    for place, reason in (
        (f"me:secret@127.0.0.1:{closed}/jobs", "refused|Connect"),
        (f"postgres:secret@127.0.0.1:{postgres.port}/none", '"none" does not exist'),
        ("me:secret/word@127.0.0.1/jobs", "no URL of a database"),
        (f"me:secret@127.0.0.1:{closed}/jobs?sslmode=verify-full", "as sslrootcert"),
    ):
        with pytest.raises(StoreRefusedError, match=reason) as refused:
            await PostgresDriver.open(f"postgresql://{place}")
        assert "secret" not in str(refused.value)
        assert "ARTMANCER_STORE_URL" in str(refused.value)


async def test_both_databases_have_the_same_tables(url: str, tmp_path: Path) -> None:
    await (await PostgresDriver.open(url)).close()
    async with connected(url) as connection:
        found = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema()"
        )
        here = {tuple(each) for each in found}
        found = await connection.fetch(
            "SELECT tablename, indexname FROM pg_indexes WHERE schemaname = current_schema() "
            "AND indexname !~ '_(pkey|key)$' OR indexname = 'jobs_key'"
        )
        here |= {tuple(each) for each in found}
    file = SqliteDriver(tmp_path / "jobs.db")
    there = {
        tuple(each)
        for sql in (
            "SELECT m.name, i.name FROM sqlite_master m, pragma_table_info(m.name) i "
            # What PostgreSQL tells by NOTIFY, SQLite's driver tells by a table.
            "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'wakes'",
            "SELECT tbl_name, name FROM sqlite_master "
            "WHERE type = 'index' AND name NOT LIKE 'sqlite%'",
        )
        for each in file._rows.connection.execute(sql).fetchall()
    }
    await file.close()
    assert here == there


async def test_what_has_expired_leaves_no_row(url: str) -> None:
    store = SqlStore(await PostgresDriver.open(url), Bounds(10**8, 10), ttl_s=-1)
    await created(store, image=bytes(2 * 10**6))
    assert await done(store, await claimed(store))
    await store.sweep()
    await store.close()
    async with connected(url) as connection:
        for table in ("jobs", "events", "blobs"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await connection.fetchval("SELECT bytes FROM finished") == 0
