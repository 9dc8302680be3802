"""Frontends, their database and their links fail at random; no job is lost, none is doubled."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

import pytest

from frontend.jobs import places
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sqlite import SqliteDriver
from tests.durability.chaos import LEASE_S, Chaos, check_store
from tests.durability.frontends import Frontend
from tests.fakes.link import Link
from tests.fakes.small_disk import SmallDisk, may_mount
from tests.fakes.triton_server import FakeTriton

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.jobs.driver import Driver
    from tests.fakes.postgres import PostgresServer

SEED = 18


@pytest.mark.parametrize(
    ("database", "count", "cancels", "faults", "seed"),
    [
        pytest.param("sqlite", 300, 75, 10, SEED, id="300-sqlite"),
        # It takes more than twice as long.
        pytest.param("postgres", 300, 75, 10, SEED, id="300-postgres", marks=pytest.mark.slow),
        # Another seed each time, unless the environment names one.
        pytest.param("sqlite", 2000, 1000, 200, None, id="2000-sqlite", marks=pytest.mark.soak),
        pytest.param("postgres", 2000, 1000, 200, None, id="2000-postgres", marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(3600)
async def test_no_job_is_lost_and_none_is_doubled(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    count: int,
    cancels: int,
    faults: int,
    seed: int | None,
) -> None:
    if seed is None:
        seed = int(os.environ.get("SEED") or random.randrange(10**6))
    print(f"SEED={seed}")  # noqa: T201 (shown if it fails)
    postgres: PostgresServer | None = None
    settings = {"STATE_FOLDER": str(tmp_path / "state"), "MAX_IN_FLIGHT": "1"}
    store_url = ""
    disk: SmallDisk | None = None
    if database == "postgres":
        postgres = request.getfixturevalue("postgres")
        store_url = postgres.new_database()
    async with contextlib.AsyncExitStack() as stack:
        if database == "sqlite" and may_mount():
            disk = stack.enter_context(SmallDisk(tmp_path / "state"))
        if postgres is not None and may_mount():
            store_url, disk = stack.enter_context(postgres.on_small_disk(store_url))
        tritons = [FakeTriton(), FakeTriton()]
        links = []
        frontends = []
        for number, triton in enumerate(tritons):
            await stack.enter_async_context(triton)
            triton.behaviour.step_s = 0.01
            folder = tmp_path / str(number)
            folder.mkdir()
            links.append(await stack.enter_async_context(Link(triton.port)))
            triton_url = f"127.0.0.1:{links[-1].port}"
            if postgres is not None:
                links.append(await stack.enter_async_context(Link(postgres.port)))
                settings["STORE_URL"] = store_url.replace(
                    f":{postgres.port}/", f":{links[-1].port}/"
                )
            frontends.append(Frontend(folder, triton_url, LEASE_S, **settings))
            stack.push_async_callback(frontends[-1].stop)
            await frontends[-1].start()
        chaos = Chaos(frontends, tritons, links, seed, postgres, disk)
        await chaos.run(count, cancels, faults)
        await chaos.check()
        for frontend in frontends:
            await frontend.stop()
        driver: Driver
        if postgres is None:
            driver = SqliteDriver(tmp_path / "state" / places.FILE)
        else:
            driver = await PostgresDriver.open(store_url)
        await check_store(driver, monkeypatch)
