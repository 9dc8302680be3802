"""Two frontends on one PostgreSQL behind the proxy, which gives a request to either of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.durability.frontends import Survivor
from tests.fakes.web_client import WebClient, check_stream, decode, edit

from .stack import Stack, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

FRONTENDS = ("frontend", "frontend-second")
WITHIN_S = 300.0
# Of 64 x 64 pixels, generated at 192 x 192: some seconds, because every one runs to its end.
LONG = {"num_inference_steps": 60}

# Docker still calls a frontend healthy that an outage of the database has just hit.
AWAIT_STORE = """
import time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    try:
        opener.open("http://127.0.0.1:8080/readyz/store", timeout=10)
        break
    except OSError:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def stack(overrides: tuple[Path, ...]) -> Iterator[Stack]:
    """Provide the stack as docs/operating.md brings it up."""
    settings = {
        "STORE_PASSWORD": "a-long-word",
        "ARTMANCER_STORE_URL": "postgresql://artmancer:a-long-word@postgres:5432/artmancer",
    }
    profiles = ("cpu", "proxy", "postgres")
    with running("artmancer-test-store", *overrides, profiles=profiles, **settings) as started:
        yield started


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[WebClient]:
    """Provide a web client of the proxy, whose next request may go to the other frontend.

    All services run and reach the database, whatever an earlier test has done.
    """
    await asyncio.to_thread(stack.compose, "up", "--detach", "--wait")
    for service in FRONTENDS:
        await asyncio.to_thread(stack.execute, service, "python", "-c", AWAIT_STORE)
    async with WebClient(stack.url) as opened:
        yield opened


async def begun(client: WebClient, job: str) -> None:
    """Return once a job has begun; its log tells that even if it has ended since."""
    async with contextlib.aclosing(client.events(job)) as events:
        async for event in events:
            if event["status"] == "processing":
                return
    raise AssertionError("it ended before it began")


async def test_an_edit_is_served_whichever_frontend_each_request_reaches(
    client: WebClient,
) -> None:
    events, result = await client.finish(edit())
    check_stream(events, steps=2)
    assert decode(result["image"]).shape == (64, 64, 3)
    for _ in range(10):
        assert (await client.status(result["task_id"]))["status"] == "done"


@pytest.mark.parametrize("killed", FRONTENDS)
async def test_clients_of_a_killed_frontend_see_their_edits_end_at_the_other(
    stack: Stack, client: WebClient, killed: str
) -> None:
    jobs = [await client.submit(edit(**LONG, seed=seed)) for seed in range(2)]
    for job in jobs:
        await begun(client, job)
    await asyncio.to_thread(stack.compose, "kill", killed)
    for job in jobs:
        await client.wait_status(job, "done", timeout_s=WITHIN_S)
        answer = await client.http.get(f"/api/generate/result/{job}")
        assert answer.status_code == 200, answer.text


async def test_a_database_that_starts_anew_repeats_no_edit(stack: Stack, client: WebClient) -> None:
    job = await client.submit(edit(**LONG))
    await begun(client, job)
    await asyncio.to_thread(stack.compose, "restart", "postgres")
    # Each frontend answers 503 until it reaches it again, and any of them gets a request.
    (*_, last) = await Survivor(stack.url).follow(job, WITHIN_S)
    assert last["status"] == "done"
    assert last["restarts"] == 0


async def test_jobs_outlive_all_containers(stack: Stack, client: WebClient) -> None:
    _, result = await client.finish(edit())
    # The networks stay: with others the client would come from another address.
    await asyncio.to_thread(stack.compose, "rm", "--stop", "--force")
    await asyncio.to_thread(stack.compose, "up", "--detach", "--wait")
    answer = await client.http.get(f"/api/generate/result/{result['task_id']}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"] == result["image"]


def test_only_the_frontends_reach_the_database(stack: Stack) -> None:
    found = stack.inspect("postgres")
    assert not any(found["NetworkSettings"]["Ports"].values())
    (network,) = found["NetworkSettings"]["Networks"]
    members = {
        service
        for service in (*FRONTENDS, "postgres", "proxy", "triton-cpu")
        if network in stack.inspect(service)["NetworkSettings"]["Networks"]
    }
    assert members == {*FRONTENDS, "postgres"}


@pytest.mark.parametrize("service", ["postgres", "proxy"])
def test_a_service_may_do_nothing_more_than_it_must(stack: Stack, service: str) -> None:
    state = stack.execute(service, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in state.splitlines() if ":\t" in line)
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert stack.inspect(service)["HostConfig"]["ReadonlyRootfs"] is True
