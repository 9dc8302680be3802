from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from typing import TYPE_CHECKING, Any

import httpx_sse
import pytest
from PIL import Image

from frontend.dispatch.work import Work
from frontend.http.app import create_app
from frontend.jobs.sql_store import SqlStore
from tests.fakes.pictures import b64, encoded, plain, plain_mask, png
from tests.fakes.web_client import WebClient, cancel_and_listen, check_stream, edit
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from frontend.jobs.store import Created, NewJob
    from frontend.settings import Settings
    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_both_ways_to_submit_answer_a_queued_task(client: WebClient) -> None:
    for path, named in (("/api/generate", True), ("/api/generate/async", False)):
        answer = await client.http.post(path, json=edit())
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "queued"
        assert (f"/api/generate/stream/{body['task_id']}" in body["message"]) == named


async def test_a_subscriber_sees_every_step_once_and_in_order(client: WebClient) -> None:
    events, _ = await client.finish(edit(num_inference_steps=7))
    check_stream(events, 7)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["preview_image"] for event in events} == {None}


async def test_a_stream_is_framed_as_the_known_client_reads_it(serve: Serve) -> None:
    async with serve(stream_ping_s=60) as client:
        task_id = await client.submit()
        headers = {"Accept": "text/event-stream"}
        answer = await client.http.get(f"/api/generate/stream/{task_id}", headers=headers)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert b"\r" not in answer.content
    blocks = answer.text.removesuffix("\n\n").split("\n\n")
    for data, number in zip(blocks[::2], blocks[1::2], strict=True):
        assert number.startswith("id: ")
        assert data.startswith("data: {")
        assert "\n" not in data


async def test_a_job_that_was_taken_is_told_no_place_until_its_log_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow store is long between the two."""
    goes_on = asyncio.Event()
    drive = Work._drive

    async def held(*arguments: Any) -> None:
        await goes_on.wait()
        await drive(*arguments)

    monkeypatch.setattr(Work, "_drive", held)
    async with serve(stream_ping_s=0.01) as client:
        task_id = await client.submit()
        async with asyncio.timeout(30):
            while (status := await client.status(task_id))["queue_position"] is not None:
                await asyncio.sleep(0.02)
        assert status["status"] == "queued"
        read = []
        async for block in client.blocks(task_id):
            read.append(block)
            # Each comes after a look at the job's place.
            if block == ": ping" and read.count(block) == 3:
                goes_on.set()
    assert sum(block.startswith("data:") for block in read) == sum(
        block.startswith("id:") for block in read
    )


async def test_loading_shows_as_processing_with_a_message(client: WebClient) -> None:
    events, _ = await client.finish()
    loading = [event for event in events if event["loading_message"] is not None]
    assert [event["stage"] for event in loading] == ["loading", "conditioning", "encoding"]
    assert all(event["status"] == "processing" for event in loading)
    assert all(event["current_step"] == 0 for event in loading)


async def test_previews_come_with_the_steps_where_asked(client: WebClient) -> None:
    task_id = await client.submit(edit(preview=True, num_inference_steps=3))
    events = await client.follow(task_id)
    steps = [event for event in events if event["stage"] == "denoising"]
    assert [event["preview_image"] for event in steps] == [b64(b"RIFF")] * 3


async def test_early_late_and_resuming_subscribers_see_the_same(client: WebClient) -> None:
    task_id = await client.submit(edit(num_inference_steps=20))
    early = await asyncio.gather(*(client.follow(task_id) for _ in range(5)))
    late = await client.follow(task_id)
    assert all(events == late for events in early)
    for seq in (1, 5, len(late) - 1):
        assert await client.follow(task_id, last_event_id=seq) == late[seq:]
    by_query = await client.http.get(f"/api/generate/stream/{task_id}", params={"last_event_id": 5})
    assert "\nid: 6\n\n" in by_query.text
    assert "\nid: 5\n" not in by_query.text


async def test_a_client_that_has_seen_the_end_gets_no_content(client: WebClient) -> None:
    task_id = await client.submit()
    last = (await client.follow(task_id))[-1]["seq"]
    headers = {"Last-Event-ID": str(last)}
    answer = await client.http.get(f"/api/generate/stream/{task_id}", headers=headers)
    assert answer.status_code == 204


# TheMorpheus407/the-dmz#2150, EventSource/eventsource#60: a browser that gets 400 gives up.
@pytest.mark.parametrize(
    "number", ["", "x", "null", "-1", "1.5", "2.0", "1, 2", "1000", str(2**64), "9" * 400]
)
async def test_a_last_event_id_that_is_no_number_of_the_job_counts_as_none(
    client: WebClient, number: str
) -> None:
    task_id = await client.submit()
    whole = await client.follow(task_id)
    path = f"/api/generate/stream/{task_id}"
    by_header = await client.http.get(path, headers={"Last-Event-ID": number})
    by_query = await client.http.get(path, params={"last_event_id": number})
    for answer in (by_header, by_query):
        assert answer.status_code == 200
        assert answer.text.count("data:") == len(whole)


@pytest.mark.parametrize(
    ("header", "query"),
    [("x", "5"), ("", "5"), ("0", "5"), ("1000", "5"), ("x", " 5 "), ("5", "x"), ("5", "2")],
)
async def test_a_bad_number_hides_no_good_one(client: WebClient, header: str, query: str) -> None:
    task_id = await client.submit(edit(num_inference_steps=5))
    await client.follow(task_id)
    answer = await client.http.get(
        f"/api/generate/stream/{task_id}",
        headers={"Last-Event-ID": header},
        params={"last_event_id": query},
    )
    assert "\nid: 6\n\n" in answer.text
    assert "\nid: 5\n" not in answer.text


async def test_libraries_get_each_event_with_its_number_in_one_block(client: WebClient) -> None:
    """httpx-sse hands on a block without data as an event, which is no JSON."""
    task_id = await client.submit(edit(num_inference_steps=3))
    whole = await client.follow(task_id)
    path = f"/api/generate/stream/{task_id}"
    async with httpx_sse.aconnect_sse(client.http, "GET", path) as source:
        events = [(int(each.id), json.loads(each.data)) async for each in source.aiter_sse()]
    assert events == [(each.pop("seq"), each) for each in whole]


async def test_libraries_take_no_ping_for_an_event(serve: Serve, triton: FakeTriton) -> None:
    async with serve(stream_ping_s=0.01) as client, triton.engine:
        task_id = await client.submit()
        path = f"/api/generate/stream/{task_id}"
        async with client.http.stream("GET", path) as raw:
            pings = 0
            async for line in raw.aiter_lines():
                pings += line == ": ping"
                if pings == 3:
                    break
        source = httpx_sse.aconnect_sse(client.http, "GET", path)
        async with source as opened:
            events = opened.aiter_sse()
            first = [(await anext(events)).json() for _ in range(2)]
            reading = asyncio.create_task(anext(events))  # through many pings
            await asyncio.wait((reading,), timeout=0.3)
            triton.engine.release()
            rest = [(await reading).json()] + [event.json() async for event in events]
            await triton.engine.acquire()
    assert [each["status"] for each in (first + rest)][-1] == "done"


def dispatched(stream: str) -> tuple[list[Any], str]:
    """Return what a browser's EventSource dispatches, and its last event id, by the standard."""
    events, data, buffered, last_id = [], "", "", ""
    for line in stream.split("\n")[:-1]:
        if line == "":
            last_id = buffered
            if data:
                events.append(json.loads(data))
            data = ""
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
        elif line.startswith("id:"):
            buffered = line.removeprefix("id:").strip()
    return events, last_id


# modelcontextprotocol/typescript-sdk#2809: a connection that breaks loses an event.
@pytest.mark.parametrize(
    "headers",
    [{"Accept": "text/event-stream"}, {"Accept": "text/event-stream", "Cache-Control": "no-cache"}],
    ids=["known-web-client", "event-source"],
)
async def test_no_cut_of_the_connection_loses_an_event(
    client: WebClient, headers: dict[str, str]
) -> None:
    task_id = await client.submit(edit(num_inference_steps=2))
    path = f"/api/generate/stream/{task_id}"
    await client.follow(task_id)
    whole = (await client.http.get(path, headers=headers)).text
    events, _ = dispatched(whole)
    rest: dict[str, list[Any]] = {}
    for length in range(len(whole)):
        seen, last_id = dispatched(whole[:length])
        if last_id not in rest:
            again = await client.http.get(path, headers=headers | {"Last-Event-ID": last_id})
            rest[last_id], _ = dispatched(again.text)
        joined = seen + rest[last_id]
        assert [each for n, each in enumerate(joined) if each not in joined[:n]] == events
        assert len(joined) <= len(events) + 1


# fastapi/fastapi#1773
async def test_head_answers_as_get_without_a_body(client: WebClient) -> None:
    task_id = await client.submit()
    await client.follow(task_id)
    for path in (
        *("/ping", "/livez", "/readyz", "/api/health", "/api/system/health", "/docs"),
        *(f"/api/generate/{part}/{task_id}" for part in ("status", "result", "result-image")),
        *(f"/api/visualization/{task_id}/{part}" for part in ("original", "download")),
        "/api/generate/status/nobody",
    ):
        head, get = await client.http.head(path), await client.http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"], path


async def test_head_of_a_stream_ends_at_once(client: WebClient, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 0.5
    task_id = await client.submit(edit(num_inference_steps=100))
    answer = await client.http.head(f"/api/generate/stream/{task_id}", timeout=20)
    assert answer.headers["content-type"].startswith("text/event-stream")
    await client.cancel(task_id)


# LostRuins/koboldcpp#2318: retries after a lost answer run the same edit again.
async def test_an_edit_whose_client_left_before_its_answer_is_cancelled(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.hold()  # nothing but a cancel ends an edit
    body = json.dumps(edit()).encode()
    url = client.http.base_url
    for _ in range(5):
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST /api/generate/async HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    # This one comes behind whatever they have left.
    stays = await client.submit()
    async with asyncio.timeout(60):
        while True:
            jobs = (await client.services())["job_manager"]
            if jobs["running"] + jobs["waiting"] == 1:
                break
            await asyncio.sleep(0.01)
    triton.release()
    assert (await client.follow(stays))[-1]["status"] == "done"


# Comfy-Org/ComfyUI#16204, soliplex/soliplex#685: a retry after a lost answer is a second edit
@pytest.mark.parametrize("path", ["/api/generate", "/api/generate/async"])
async def test_one_idempotency_key_is_one_job(
    client: WebClient, triton: FakeTriton, path: str
) -> None:
    async def submitted(key: str, **fields: Any) -> str:
        answer = await client.http.post(path, json=edit(**fields), headers={"Idempotency-Key": key})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])

    first = set(await asyncio.gather(*(submitted("a") for _ in range(5))))
    assert len(first) == 1
    await client.follow(min(first))
    assert await submitted("a") in first
    assert await submitted("b") not in first
    other = await client.http.post(path, json=edit(seed=5), headers={"Idempotency-Key": "a"})
    assert other.status_code == 400
    assert other.json()["detail"] == "Idempotency-Key: it came with another request before"
    long = await client.http.post(path, json=edit(), headers={"Idempotency-Key": "x" * 256})
    assert long.status_code == 400
    assert long.json()["detail"].startswith("Idempotency-Key: ")


async def test_a_refused_submission_leaves_its_key_free(client: WebClient) -> None:
    key = {"Idempotency-Key": "a"}
    for _ in range(2):
        refused = await client.http.post("/api/generate", json=edit(input_image="x"), headers=key)
        assert refused.status_code == 400
    assert (await client.http.post("/api/generate", json=edit(), headers=key)).status_code == 200


async def test_a_key_finds_its_job_while_triton_is_down(
    client: WebClient, triton: FakeTriton
) -> None:
    key = {"Idempotency-Key": "a"}
    triton.hold()
    first = await client.http.post("/api/generate", json=edit(), headers=key)
    await triton.kill()
    async with asyncio.timeout(30):
        while (await client.http.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
    again = await client.http.post("/api/generate", json=edit(), headers=key)
    assert again.status_code == 200, again.text
    assert again.json()["task_id"] == first.json()["task_id"]


@pytest.mark.parametrize("named", [False, True], ids=["without a key", "with a key"])
async def test_an_edit_keeps_its_place_until_it_is_stored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    disk_writes, storing, most = asyncio.Event(), 0, 0
    create = SqlStore.create

    async def create_slowly(store: SqlStore, job: NewJob) -> Created:
        nonlocal storing, most
        storing += 1
        most = max(most, storing)
        await disk_writes.wait()
        created = await create(store, job)
        storing -= 1
        return created

    monkeypatch.setattr(SqlStore, "create", create_slowly)
    settings = settings.model_copy(update={"image_workers": 1})
    app = create_app(settings)
    async with listening(app, settings) as url, WebClient(url) as client:

        async def submitted(number: int) -> httpx.Response:
            key = {"Idempotency-Key": str(number)} if named else {}
            return await client.http.post("/api/generate", json=edit(), headers=key)

        waiting = app.state.services.images._edits.turns._waiting
        submissions = [asyncio.create_task(submitted(number)) for number in range(3)]
        await eventually(lambda: storing and storing + waiting.sum == 3)
        disk_writes.set()
        answers = await asyncio.gather(*submissions)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert most == 1


async def test_a_key_is_free_again_once_its_job_has_expired(
    serve: Serve, triton: FakeTriton
) -> None:
    async with serve(result_ttl_s=0.01) as client:
        key = {"Idempotency-Key": "a"}
        ids = []
        for _ in range(2):
            triton.hold()  # none expires before its submission is answered
            answer = await client.http.post("/api/generate", json=edit(), headers=key)
            ids.append(answer.json()["task_id"])
            triton.release()
            path = f"/api/generate/status/{ids[-1]}"
            async with asyncio.timeout(30):
                while (await client.http.get(path)).status_code == 200:
                    await asyncio.sleep(0.01)
        assert ids[0] != ids[1]


async def test_an_idle_stream_is_pinged(serve: Serve, triton: FakeTriton) -> None:
    async with serve(stream_ping_s=0.05) as client:
        async with triton.engine, asyncio.timeout(30):
            blocks = client.blocks(await client.submit())
            pings = 0
            while pings < 4:
                pings += await anext(blocks) == ": ping"
        rest = [block async for block in blocks]
    assert json.loads(rest[-2].removeprefix("data:"))["status"] == "done"


async def test_the_first_event_is_there_at_once(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 60
    async with serve(stream_ping_s=60) as client:
        await client.submit()
        started = time.perf_counter()
        task_id = await client.submit()
        async with contextlib.aclosing(client.events(task_id)) as events:
            first = await anext(events)
        assert time.perf_counter() - started < 20
        assert first["status"] == "queued"


async def test_the_stream_closes_right_after_its_end(serve: Serve) -> None:
    async with serve(stream_ping_s=60) as client:
        task_id = await client.submit()
        ended_at = 0.0
        async for event in client.events(task_id):
            if event["status"] == "done":
                ended_at = time.perf_counter()
        assert 0 < time.perf_counter() - ended_at < 20


async def test_what_is_sent_to_the_model(client: WebClient, triton: FakeTriton) -> None:
    picture, mask = encoded("JPEG", (20, 10)), encoded(mode="L")
    reference, reference_mask = encoded("WEBP"), encoded("BMP", mode="L")
    task_id = await client.submit(
        edit(
            prompt="đặt bình hoa",
            input_image=f"data:image/jpeg;base64,{b64(picture)}",
            conditional_images=[b64(mask), b64(picture)],
            reference_image=b64(reference),
            reference_mask_R=b64(reference_mask),
            task_type="insertion",
            width=512,
            height=768.0,
            guidance_scale=2,
            true_cfg_scale=None,
            negative_prompt="blurry",
            seed=2**63 - 1,
            angle="top-down",
            background_preset="marble-surface",
            input_quality="original",
            enable_flowmatch_scheduler=True,
            mask_tool_type="box",
            region=[0, 1, 16, 9.0],
            num_inference_steps=None,
            mask_image="ignored",
        )
    )
    await client.wait_status(task_id, "processing", "done")
    assert triton.requests[task_id] == {
        "PROMPT": ["đặt bình hoa".encode()],
        "IMAGE": [plain(picture)],
        "CONDITIONAL_IMAGE_0": [plain_mask(mask)],
        "CONDITIONAL_IMAGE_1": [plain(picture)],
        "REFERENCE_IMAGE": [plain(reference)],
        "REFERENCE_MASK_R": [plain_mask(reference_mask)],
        "NEGATIVE_PROMPT": [b"blurry"],
        "TASK_TYPE": [b"insertion"],
        "ANGLE": [b"top-down"],
        "BACKGROUND_PRESET": [b"marble-surface"],
        "INPUT_QUALITY": [b"original"],
        "MASK_TOOL_TYPE": [b"box"],
        "REGION": [b"[0, 1, 16, 9]"],
        "WIDTH": [512],
        "HEIGHT": [768],
        "NUM_INFERENCE_STEPS": [10],
        "GUIDANCE_SCALE": [2.0],
        "SEED": [2**63 - 1],
        "ENABLE_FLOWMATCH_SCHEDULER": [True],
    }


async def test_what_is_left_open_is_not_sent(client: WebClient, triton: FakeTriton) -> None:
    request = {"prompt": "", "input_image": b64(png()), "task_type": "white-balance"}
    answer = await client.http.post("/api/generate", json=request | {"reference_image": ""})
    task_id = answer.json()["task_id"]
    await client.wait_status(task_id, "processing", "done")
    sent = triton.requests[task_id]
    assert 0 <= sent.pop("SEED")[0] < 2**32
    assert sent == {
        "PROMPT": [b""],
        "IMAGE": [plain(png())],
        "TASK_TYPE": [b"white-balance"],
        "NUM_INFERENCE_STEPS": [10],
    }


@pytest.mark.parametrize(("reference", "task"), [(b64(png()), b"insertion"), ("", b"removal")])
async def test_an_open_task_follows_from_the_reference(
    client: WebClient, triton: FakeTriton, reference: str, task: bytes
) -> None:
    task_id = await client.submit(edit(task_type=None, reference_image=reference))
    await client.wait_status(task_id, "processing", "done")
    assert triton.requests[task_id]["TASK_TYPE"] == [task]


async def test_a_result_has_the_contracts_keys(client: WebClient) -> None:
    _, result = await client.finish(edit(seed=41))
    assert result["task_id"] == result["request_id"]
    assert result["status"] == "done"
    assert result["success"] is True
    assert base64.b64decode(result["image"]).startswith(b"\x89PNG")
    assert result["debug_info"] == {"lora_adapter": "removal"}
    assert result["model_used"] == "fake_removal"
    assert result["parameters_used"] == {"seed": 41}
    assert result["generation_time"] == 0.5


async def test_a_drawn_seed_is_reported_and_differs(client: WebClient) -> None:
    seeds = {(await client.finish(edit(seed=None)))[1]["parameters_used"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


async def test_the_picture_for_display_is_webp(client: WebClient) -> None:
    _, result = await client.finish()
    answer = await client.http.get(f"/api/generate/result-image/{result['task_id']}")
    assert answer.headers["content-type"] == "image/webp"
    age_s = int(answer.headers["cache-control"].removeprefix("private, max-age="))
    assert 3500 < age_s < 3600
    assert {"Authorization", "Cookie"} <= set(answer.headers["vary"].split(", "))
    assert Image.open(io.BytesIO(answer.content)).format == "WEBP"


@pytest.mark.parametrize("path", ["result", "result-image"])
async def test_no_result_before_the_end(client: WebClient, triton: FakeTriton, path: str) -> None:
    triton.hold()
    task_id = await client.submit()
    for status in ("processing", "cancelled"):
        if status == "cancelled":
            await client.cancel(task_id)
        await client.wait_status(task_id, status)
        answer = await client.http.get(f"/api/generate/{path}/{task_id}")
        assert answer.status_code == 400
        detail = f"Task not completed yet. Current status: {status}"
        ended = status == "cancelled"
        if ended:
            detail += ". It has ended and will never complete"
        assert answer.json() == {"detail": detail, "status": status, "ended": ended}


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (
            "[INVALID_ARGUMENT] conditional_images: empty mask",
            "400: conditional_images: empty mask",
        ),
        ("[UNIMPLEMENTED] no such adapter", "501: no such adapter"),
        ("[UNAVAILABLE] the queue is full", "503: the queue is full"),
        ("[RESOURCE_EXHAUSTED] out of memory", "500: out of memory"),
        ("[INTERNAL] it broke", "500: it broke"),
        ("boo\nTraceback: secret", "500: Triton could not run the model: boo"),
    ],
)
async def test_a_failed_job_tells_why_everywhere(
    client: WebClient, triton: FakeTriton, failure: str, text: str
) -> None:
    triton.behaviour.fail_at, triton.behaviour.failure = 2, failure
    task_id = await client.submit()
    *before, last = await client.follow(task_id)
    assert (last["status"], last["error"]) == ("error", text)
    assert all(event["error"] is None for event in before)
    assert (await client.status(task_id))["error"] == text
    for path in ("result", "result-image"):
        answer = await client.http.get(f"/api/generate/{path}/{task_id}")
        assert (answer.status_code, answer.json()) == (
            500,
            {"detail": text, "status": "error", "ended": True},
        )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/generate/status"),
        ("GET", "/api/generate/result"),
        ("GET", "/api/generate/result-image"),
        ("GET", "/api/generate/stream"),
        ("POST", "/api/generate/async/cancel"),
    ],
)
async def test_an_unknown_task_is_404(client: WebClient, method: str, path: str) -> None:
    answer = await client.http.request(method, f"{path}/{UNKNOWN}")
    assert answer.status_code == 404
    assert answer.json() == {"detail": f"Task {UNKNOWN} not found"}


async def test_a_running_job_is_cancelled_in_band(client: WebClient, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 0.05
    task_id = await client.submit(edit(num_inference_steps=100))
    await eventually(lambda: triton.steps)  # the log may be far behind
    triton.hold()
    await client.reached(task_id, step=1)
    answer = await client.cancel(task_id)
    assert answer.status_code == 200
    message = f"Async generation task {task_id} marked for cancellation"
    assert answer.json() == {
        "success": True,
        "message": message,
        "task_id": task_id,
        "status": "processing",
    }
    last = (await client.follow(task_id))[-1]
    assert (last["status"], last["error"]) == ("cancelled", "Generation cancelled by user")
    assert last["current_step"] < 100
    assert triton.in_band_cancels == [task_id]
    assert triton.cut_streams == []


async def test_a_waiting_job_that_is_cancelled_never_starts(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve(max_in_flight=1) as client:
        running = await client.submit()
        await client.wait_status(running, "processing")
        waiting, behind = [await client.submit() for _ in range(2)]
        assert (await client.status(behind))["queue_position"] == 2
        await client.cancel(waiting)
        assert (await client.wait_status(waiting, "cancelled"))["queue_position"] is None
        moved = [event async for event in _until(client, behind, "queue_position", 1)]
        assert [event["queue_position"] for event in moved] == [2, 1]
        await client.cancel(running)
        await client.wait_status(behind, "processing")
    assert set(triton.requests) == {running, behind}


@pytest.mark.parametrize("waiting", [False, True], ids=["running", "waiting"])
async def test_a_cancel_is_answered_before_the_stream_ends(
    serve: Serve, triton: FakeTriton, waiting: bool
) -> None:
    triton.hold()
    async with serve(max_in_flight=1) as client:
        task_ids = [await client.submit() for _ in range(2)]
        await client.wait_status(task_ids[0], "processing")
        url = str(client.http.base_url)
        answer, events = await asyncio.to_thread(cancel_and_listen, url, task_ids[waiting])
    assert answer.startswith("HTTP/1.1 200 ")
    assert '"status":"cancelled"' in events


async def check_late_cancel(client: WebClient, task_id: str, status: str) -> None:
    answer = await client.cancel(task_id)
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": f"Async generation task {task_id} had already ended with status {status}",
        "task_id": task_id,
        "status": status,
    }


async def test_cancelling_again_or_too_late_changes_nothing(
    client: WebClient, triton: FakeTriton
) -> None:
    _, result = await client.finish()
    await check_late_cancel(client, result["task_id"], "done")
    assert (await client.status(result["task_id"]))["status"] == "done"

    triton.behaviour.fail_at, triton.behaviour.failure = 1, "[INTERNAL] it broke"
    failed = await client.submit()
    await client.wait_status(failed, "error")
    await check_late_cancel(client, failed, "error")
    triton.behaviour.fail_at = None

    triton.hold()
    task_id = await client.submit()
    answers = await asyncio.gather(*(client.cancel(task_id) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    await client.wait_status(task_id, "cancelled")
    await check_late_cancel(client, task_id, "cancelled")
    events = await client.follow(task_id)
    assert [event["status"] for event in events].count("cancelled") == 1


async def test_an_adapter_that_is_not_installed_is_501(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.adapters = ("removal",)
    async with asyncio.timeout(30):
        while (await client.services())["generation"]["adapters"] != ["removal"]:
            await asyncio.sleep(0.02)
    answer = await client.http.post("/api/generate", json=edit(task_type="insertion"))
    assert answer.status_code == 501
    assert "insertion" in answer.json()["detail"]
    await client.finish(edit(task_type="removal"))


async def test_a_full_queue_is_503_and_loses_nothing(serve: Serve, triton: FakeTriton) -> None:
    async with serve(max_in_flight=1, max_queue_size=2, owner_fraction=1) as client:
        async with triton.engine:
            accepted = [await client.submit()]
            await eventually(lambda: triton.at_engine)
            accepted += [await client.submit() for _ in range(2)]
            answer = await client.http.post("/api/generate", json=edit())
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json() == {"detail": "The queue is full"}
        # All else goes on, so no balancer should pass this server over.
        assert (await client.http.get("/readyz")).status_code == 200
        for task_id in accepted:
            assert (await client.follow(task_id))[-1]["status"] == "done"
        await client.finish()


async def test_position_and_eta_are_reported(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 0.02
    async with serve(max_in_flight=1) as client:
        started = time.perf_counter()
        await client.finish(edit(num_inference_steps=10))
        took = time.perf_counter() - started
        async with triton.engine:
            ids = [await client.submit(edit(num_inference_steps=10))]
            await eventually(lambda: triton.at_engine)
            ids += [await client.submit(edit(num_inference_steps=10)) for _ in range(2)]
            async with asyncio.timeout(30):  # until the board has heard of the first edit's pace
                while (last := await client.status(ids[2]))["eta_seconds"] is None:
                    await asyncio.sleep(0.02)
            events: list[dict[str, Any]] = []
            following = asyncio.create_task(_follow(client, ids[2], events))
            await eventually(lambda: events)
            started = time.perf_counter()
            await triton.let_one()
            await eventually(lambda: events[-1]["queue_position"] == 1)
        assert last["queue_position"] == 2
        assert 0.3 < last["eta_seconds"] <= 3 * took
        await following
        took = time.perf_counter() - started
    assert [event["queue_position"] for event in events if event["queue_position"]] == [2, 1]
    etas = [event["eta_seconds"] for event in events if event["stage"] == "denoising"]
    # A busy machine may stretch a step, and with it what is left; in the end nothing is.
    assert etas[-1] < 0.2 * took


async def test_what_triton_has_taken_ahead_says_when_it_ends(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve(max_in_flight=2) as client:
        ids = [await client.submit(edit(num_inference_steps=100)) for _ in range(3)]
        for task_id in ids[:2]:
            await client.wait_status(task_id, "processing")
        behind: list[list[dict[str, Any]]] = [[], []]
        following = [
            asyncio.create_task(_follow(client, task_id, events))
            for task_id, events in zip(ids[1:], behind, strict=True)
        ]
        await eventually(lambda: all(behind))
        for events in behind:
            assert events[-1]["eta_seconds"] is None  # no step was measured yet
        triton.release()
        await eventually(lambda: triton.steps)  # the log may be far behind
        triton.hold()
        await eventually(lambda: all(events[-1]["eta_seconds"] for events in behind))
        assert (await client.status(ids[1]))["eta_seconds"] > 0
        assert [events[-1]["status"] for events in behind] == ["processing", "queued"]
        triton.release()
        await asyncio.gather(*following)
    assert [events[-1]["status"] for events in behind] == ["done", "done"]


async def test_finished_jobs_expire_and_no_others(serve: Serve, triton: FakeTriton) -> None:
    async with serve(result_ttl_s=0.2) as client:
        async with triton.engine:
            task_id = await client.submit()
            await asyncio.sleep(0.3)
            await client.status(task_id)
        async with asyncio.timeout(30):
            while (await client.http.get(f"/api/generate/status/{task_id}")).status_code != 404:
                await asyncio.sleep(0.02)


async def test_inputs_beyond_the_memory_bound_are_503(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    big = b64(encoded("BMP", (200, 200)))
    async with serve(store_bytes=800_000, max_in_flight=1, owner_fraction=1) as client:
        answers = [
            await client.http.post("/api/generate", json=edit(input_image=big)) for _ in range(5)
        ]
    codes = [answer.status_code for answer in answers]
    assert codes == sorted(codes)
    assert codes[0] == 200
    assert codes[-1] == 503
    assert "retry-after" in answers[-1].headers


async def test_a_body_beyond_its_bound_is_413(serve: Serve) -> None:
    async with serve(max_body_bytes=10_000) as client:
        for content in (b"x" * 20_000, _chunks(b"x" * 5_000, 4)):
            answer = await client.http.post("/api/generate", content=content)
            assert answer.status_code == 413
            assert answer.json() == {"detail": "body: more than 10000 bytes"}
        await client.finish()


async def test_who_does_not_read_disturbs_nobody(client: WebClient, triton: FakeTriton) -> None:
    triton.hold()
    task_id = await client.submit(edit(num_inference_steps=50, preview=True))
    url = client.http.base_url
    mute = [await asyncio.open_connection(url.host, url.port) for _ in range(5)]
    for reader, writer in mute:
        writer.write(
            f"GET /api/generate/stream/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
    for _ in range(5):  # who leave in mid-stream
        async with contextlib.aclosing(client.events(task_id)) as events_of_one:
            await anext(events_of_one)
    triton.release()
    events = await client.follow(task_id)
    check_stream(events, 50)
    await client.finish()
    for _, writer in mute:
        writer.close()


async def test_two_hundred_subscribers_see_everything(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.02
    task_id = await client.submit(edit(num_inference_steps=10))
    followed = await asyncio.gather(*(client.follow(task_id) for _ in range(200)))
    assert all(events == followed[0] for events in followed)
    check_stream(followed[0], 10)


async def test_fifty_jobs_at_once_all_end_and_leave_nothing(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.001
    results = await asyncio.gather(*(client.finish(edit(seed=n)) for n in range(50)))
    assert sorted(result["parameters_used"]["seed"] for _, result in results) == list(range(50))
    assert triton.most_at_once <= 2
    async with asyncio.timeout(30):  # a job's stream from Triton outlasts its last event
        health = {"running": 1}
        while health["running"]:
            health = (await client.services())["job_manager"]
    assert health["waiting"] == 0


async def _follow(client: WebClient, task_id: str, events: list[dict[str, Any]]) -> None:
    async for event in client.events(task_id):
        events.append(event)


async def _until(
    client: WebClient, task_id: str, key: str, value: Any
) -> AsyncIterator[dict[str, Any]]:
    async with contextlib.aclosing(client.events(task_id)) as events:
        async for event in events:
            yield event
            if event[key] == value:
                return


def _chunks(chunk: bytes, count: int) -> Any:
    async def produce() -> Any:
        for _ in range(count):
            yield chunk

    return produce()
