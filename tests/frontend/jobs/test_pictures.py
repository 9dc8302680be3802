"""The pictures of mask requests in the store, and the versions of its tables, over each driver."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from typing import TYPE_CHECKING, Any

import pytest

from frontend.domain.masks import Picture
from frontend.errors import UnavailableError
from frontend.jobs import driver as driver_module
from frontend.jobs import postgres, sql_pictures, sqlite, statements
from frontend.jobs.blobs import DISK_RESERVE, PART_BYTES
from frontend.jobs.sql_pictures import PICTURE_BYTES, SqlPictures
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.statements import SCHEMA_VERSION, row, rows
from frontend.jobs.sweeping import ORPHAN_S
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.counting import counted
from tests.frontend.jobs.samples import created

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from frontend.jobs.driver import Driver
    from frontend.jobs.statements import Row

    Open = Callable[..., Awaitable[SqlPictures]]
    Connect = Callable[[], Awaitable[Driver]]

ME = "me"
TTL_S = 1000.0
SIZE = 1000
# What only tests ask of a database.
SQL = {
    "age": "UPDATE pictures SET used_at = used_at - $1",
    "age_of": "UPDATE pictures SET used_at = used_at - $1 WHERE image_id = $2",
    "age_parts": "UPDATE picture_parts SET put_at = put_at - $1",
    "used": "SELECT used_at FROM pictures",
    "version": "SELECT version FROM schema_version",
    "counts": "SELECT (SELECT count(*) FROM pictures) AS pictures, "
    "(SELECT count(*) FROM picture_parts) AS parts, (SELECT count(*) FROM pictures_of) AS owners",
}


def picture(name: str, size: int = SIZE) -> Picture:
    return Picture(name.encode().ljust(size), name, hashlib.sha256(name.encode()).digest())


async def keep(pictures: SqlPictures, owner: str, kept: Picture) -> None:
    await pictures.add(owner, kept, await pictures.write(kept))


async def held(pictures: SqlPictures, owner: str, *names: str) -> list[str]:
    return [name for name in names if await pictures.get(owner, name)]


async def ask(pictures: SqlPictures, name: str, *values: Any) -> Sequence[Row]:
    return await pictures._driver.write(rows(name, *values))


async def counts(pictures: SqlPictures) -> tuple[int, int, int]:
    """Return the numbers of pictures, of parts, and of owners that have any."""
    [found] = await ask(pictures, "counts")
    return found["pictures"], found["parts"], found["owners"]


@pytest.fixture
async def opened(new_database: Callable[[], Connect]) -> AsyncIterator[Open]:
    """Open connections to one database, by default with room for three pictures."""
    connect = new_database()
    async with contextlib.AsyncExitStack() as stack:

        async def open_(max_bytes: int = 3 * (SIZE + PICTURE_BYTES)) -> SqlPictures:
            driver: Any = await connect()
            driver._texts |= SQL
            stack.push_async_callback(driver.close)
            return SqlPictures(driver, max_bytes, TTL_S)

        yield open_


@pytest.fixture
async def pictures(opened: Open) -> SqlPictures:
    return await opened()


async def test_a_picture_is_kept_for_every_process(opened: Open) -> None:
    here, there = await opened(10**8), await opened(10**8)
    big = Picture(bytes(range(256)) * (2 * PART_BYTES // 256) + b"end", "id", b"digest")
    assert not await here.use(ME, "id")
    assert await here.get(ME, "id") is None
    await keep(here, ME, big)
    for pictures in (here, there):
        assert await pictures.use(ME, "id")
        assert await pictures.get(ME, "id") == big
    assert await counts(there) == (1, 3, 1)


async def test_a_picture_is_its_owner_s(pictures: SqlPictures) -> None:
    await keep(pictures, ME, picture("a"))
    assert await pictures.get("you", "a") is None
    assert not await pictures.use("you", "a")
    await keep(pictures, "you", picture("a"))
    assert await pictures.get("you", "a") == picture("a")
    assert await counts(pictures) == (2, 2, 2)


async def test_what_is_only_written_is_not_there(pictures: SqlPictures) -> None:
    blob = await pictures.write(picture("a"))
    assert await pictures.get(ME, "a") is None
    await pictures.drop(blob)
    assert await counts(pictures) == (0, 0, 0)


async def test_of_two_that_write_one_picture_one_is_kept(opened: Open) -> None:
    here, there = await opened(), await opened()
    await asyncio.gather(*(keep(each, ME, picture("a")) for each in (here, there, here)))
    assert await here.get(ME, "a") == picture("a")
    assert await counts(here) == (1, 1, 1)


async def test_what_was_unused_for_longest_goes_first(pictures: SqlPictures) -> None:
    for name in "abc":
        await ask(pictures, "age", 2 * pictures.note_s)
        await keep(pictures, ME, picture(name))
    await ask(pictures, "age", 2 * pictures.note_s)
    assert await pictures.use(ME, "a")
    assert await pictures.get(ME, "b")
    await keep(pictures, ME, picture("d"))
    assert await held(pictures, ME, *"abcd") == ["a", "b", "d"]
    await keep(pictures, ME, picture("large", 2 * (SIZE + PICTURE_BYTES) - PICTURE_BYTES))
    assert len(await held(pictures, ME, *"abd", "large")) == 2
    assert await counts(pictures) == (2, 2, 1)


async def test_one_that_would_never_fit_moves_nobody(pictures: SqlPictures) -> None:
    for name in "abc":
        await keep(pictures, ME, picture(name))
    await keep(pictures, ME, picture("d", 20 * SIZE))
    assert await held(pictures, ME, *"abcd") == ["a", "b", "c"]
    assert await counts(pictures) == (3, 3, 1)


async def test_the_owner_of_the_most_loses_pictures_first(pictures: SqlPictures) -> None:
    await keep(pictures, ME, picture("mine"))
    for name in "abcd":
        await ask(pictures, "age", 1)
        await keep(pictures, "you", picture(name))
    assert await held(pictures, "you", *"abcd") == ["c", "d"]
    await keep(pictures, "third", picture("x"))
    assert await held(pictures, "third", "x") == ["x"]
    assert await held(pictures, ME, "mine") == ["mine"]


async def test_the_bound_holds_under_concurrent_writes(opened: Open) -> None:
    stores = [await opened() for _ in range(3)]
    await asyncio.gather(
        *(keep(stores[i % 3], f"owner{i % 2}", picture(f"{i}")) for i in range(12))
    )
    found = await stores[0]._driver.read(row("picture_bytes"))
    assert found is not None
    assert found["bytes"] == 3 * (SIZE + PICTURE_BYTES)
    assert (await counts(stores[0]))[:2] == (3, 3)


async def test_the_others_have_their_turn_while_many_pictures_go(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = await opened(10 * (SIZE + PICTURE_BYTES))
    for number in range(10):
        await keep(pictures, ME, picture(f"{number}"))
    monkeypatch.setattr(sql_pictures, "FORGET_AT_ONCE", 2)
    forgotten = counted(pictures._driver, "delete_picture", monkeypatch)
    large = picture("large", 5 * (SIZE + PICTURE_BYTES) - PICTURE_BYTES)
    await keep(pictures, ME, large)
    assert forgotten == [2, 2, 1]
    assert await pictures.get(ME, "large") == large
    assert (await counts(pictures))[0] == 6
    await ask(pictures, "age", 2 * TTL_S)
    await pictures.sweep()
    assert forgotten[3:] == [2, 2, 2]
    assert await counts(pictures) == (0, 0, 0)


@pytest.mark.parametrize("way", ["use", "get", "add"])
async def test_a_use_is_noted_each_tenth_of_the_time(pictures: SqlPictures, way: str) -> None:
    async def used_once() -> float:
        match way:
            case "use":
                assert await pictures.use(ME, "a")
            case "get":
                assert await pictures.get(ME, "a")
            case "add":
                await keep(pictures, ME, picture("a"))
        return float((await ask(pictures, "used"))[0]["used_at"])

    await keep(pictures, ME, picture("a"))
    await ask(pictures, "age", pictures.note_s / 2)
    [first] = await ask(pictures, "used")
    if way != "add":  # whoever adds a picture has sent it again
        assert await used_once() == first["used_at"]
    await ask(pictures, "age", pictures.note_s)
    assert await used_once() > first["used_at"]


async def test_a_picture_stays_for_its_time_and_then_goes(pictures: SqlPictures) -> None:
    await keep(pictures, ME, picture("a"))
    await keep(pictures, ME, picture("b"))
    # The last use that was not noted may be so much later.
    await ask(pictures, "age_of", TTL_S + pictures.note_s - 100, "a")
    await ask(pictures, "age_of", TTL_S + pictures.note_s + 1, "b")
    assert await held(pictures, ME, *"ab") == ["a"]
    assert not await pictures.use(ME, "b")
    await pictures.sweep()
    assert await counts(pictures) == (1, 1, 1)
    await ask(pictures, "age", TTL_S + pictures.note_s + 1)
    await pictures.sweep()
    assert await counts(pictures) == (0, 0, 0)
    found = await pictures._driver.read(row("picture_bytes"))
    assert found is not None
    assert found["bytes"] == 0


async def test_one_that_a_clock_which_was_ahead_has_put_expires(pictures: SqlPictures) -> None:
    await keep(pictures, ME, picture("a"))
    await pictures.write(picture("lost"))
    await ask(pictures, "age", -1.05 * TTL_S)
    await pictures.sweep()
    [before] = await ask(pictures, "used")
    assert await held(pictures, ME, "a") == ["a"]
    [after] = await ask(pictures, "used")
    assert after["used_at"] < before["used_at"]  # by the clock as it is now
    for what in ("age", "age_parts"):
        await ask(pictures, what, -365 * 86400.0)
    assert await held(pictures, ME, "a") == []
    pictures._orphans._due = -math.inf  # as if its time had come again
    await pictures.sweep()
    assert await counts(pictures) == (0, 0, 0)


async def test_one_that_has_expired_unswept_may_come_again(pictures: SqlPictures) -> None:
    await keep(pictures, ME, picture("a"))
    await ask(pictures, "age", 2 * TTL_S)
    await keep(pictures, ME, picture("a"))
    assert await pictures.get(ME, "a") == picture("a")
    assert await counts(pictures) == (1, 1, 1)


async def test_what_was_written_for_a_picture_that_never_came_is_swept(
    pictures: SqlPictures,
) -> None:
    await pictures.write(picture("lost"))
    await keep(pictures, ME, picture("a"))
    await ask(pictures, "age_parts", ORPHAN_S + 1)
    await pictures.write(picture("on its way"))
    await pictures.sweep()
    assert await counts(pictures) == (1, 2, 1)
    assert await pictures.get(ME, "a") == picture("a")


async def test_a_disk_that_is_nearly_full_takes_no_picture(
    pictures: SqlPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def free() -> float:
        return DISK_RESERVE + SIZE

    monkeypatch.setattr(pictures._driver, "free_bytes", free)
    with pytest.raises(UnavailableError, match="nearly full"):
        await pictures.write(picture("a"))
    assert await counts(pictures) == (0, 0, 0)


# --- the versions of the tables ---


async def test_the_tables_of_version_1_are_brought_forward(
    new_database: Callable[[], Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = new_database()
    with monkeypatch.context() as earlier:
        earlier.setattr(statements, "MIGRATIONS", ())
        for module in (driver_module, postgres, sqlite):
            earlier.setattr(module, "SCHEMA_VERSION", 1)
        store = SqlStore(await connect(), Bounds(10**7, 10), 60)
        await created(store)
        with pytest.raises(Exception, match=r"no such table: pictures|UndefinedTableError"):
            await SqlPictures(store.driver, 10**6, TTL_S).use(ME, "a")
        await store.close()
    # Several processes may be the first.
    drivers: list[Any] = await asyncio.gather(*(connect() for _ in range(3)))
    for driver in drivers:
        driver._texts |= SQL
        assert [each["version"] for each in await driver.read(rows("version"))] == [SCHEMA_VERSION]
        store = SqlStore(driver, Bounds(10**7, 10), 60)
        assert (await store.last("a"))[0] == 1
        await keep(SqlPictures(driver, 10**6, TTL_S), ME, picture("a"))
        await store.close()


def test_a_script_that_has_made_tables_somewhere_does_not_change() -> None:
    first = [
        "".join(statements.split(statements.scripts(name, 0)[0])) for name in ("sqlite", "postgres")
    ]
    made = [hashlib.sha256(script.encode()).hexdigest()[:16] for script in first]
    assert made == ["1071fc21c774f78f", "00073099928a4fd7"], "write a migration instead"
