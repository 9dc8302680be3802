"""GET /api/generate: the list of edits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.web_client import WebClient, edit

if TYPE_CHECKING:
    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve


async def page(client: WebClient, **query: Any) -> dict[str, Any]:
    answer = await client.http.get("/api/generate", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_there_are_none_at_first(client: WebClient) -> None:
    assert await page(client) == {"tasks": [], "next_before": None}


async def test_an_edit_is_listed_as_its_status_is_told(client: WebClient) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    events, _ = await client.finish(edit(task_type="white-balance", num_inference_steps=3))
    (task,) = (await page(client))["tasks"]
    status = await client.http.get(f"/api/generate/status/{events[0]['task_id']}")
    assert status.json() == {name: task[name] for name in status.json()}
    assert task["task_type"] == "white-balance"
    created, ended = map(datetime.fromisoformat, (task["created_at"], task["ended_at"]))
    assert before < created <= ended < datetime.now(UTC) + timedelta(seconds=1)


async def test_pages_go_from_the_newest_to_the_oldest_and_new_edits_shift_none(
    client: WebClient,
) -> None:
    ids = [await client.submit() for _ in range(7)]
    seen: list[str] = []
    before: dict[str, int] = {}
    while True:
        body = await page(client, limit=3, **before)
        seen += [task["task_id"] for task in body["tasks"]]
        if body["next_before"] is None:
            break
        before = {"before": body["next_before"]}
        await client.submit()
    assert seen == ids[::-1]


async def test_a_full_last_page_names_no_next(client: WebClient) -> None:
    for _ in range(2):
        await client.submit()
    body = await page(client, limit=2)
    assert (len(body["tasks"]), body["next_before"]) == (2, None)


async def test_only_edits_of_the_wanted_status(client: WebClient, triton: FakeTriton) -> None:
    (done, *_), _ = await client.finish()
    wanted = ["queued", "processing"]
    async with triton.engine:
        ids = [await client.submit() for _ in range(4)]
        await client.cancel(ids[-1])
        await client.follow(ids[-1])
        waiting = (await page(client, status=wanted))["tasks"]
        assert [task["task_id"] for task in waiting] == ids[2::-1]
        assert {task["ended_at"] for task in waiting} == {None}
        (only,) = (await page(client, status="done"))["tasks"]
        assert only["task_id"] == done["task_id"]
        first = await page(client, status=wanted, limit=1)
        rest = await page(client, status=wanted, before=first["next_before"])
        pages = first["tasks"] + rest["tasks"]
        assert [task["task_id"] for task in pages] == ids[2::-1]
    for task_id in ids:
        await client.follow(task_id)


async def test_an_expired_edit_is_listed_no_more(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    async with serve(result_ttl_s=0.05) as client:
        await client.submit()
        assert (await page(client))["tasks"]
        triton.release()
        async with asyncio.timeout(30):
            while (await page(client))["tasks"]:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=x", "before=0", "before=x", "status=finished"),
        *(f"before={2**63}", f"before={10**400}"),
    ],
)
async def test_a_wrong_query_is_refused_by_its_name(client: WebClient, query: str) -> None:
    answer = await client.http.get(f"/api/generate?{query}")
    assert answer.status_code == 400
    detail = answer.json()["detail"]
    assert detail.startswith(query.partition("=")[0])
    assert "Value error" not in detail
