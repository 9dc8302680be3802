"""Keys, owners and shares over REST, through a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from frontend import keys
from frontend.http.access import OPEN_PATHS
from tests.fakes.bad_masks import mask_request
from tests.fakes.pictures import b64, encoded, png
from tests.fakes.web_client import edit
from tests.frontend.eventually import eventually
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import WebClient
    from tests.frontend.conftest import Serve

ANN, OF_ANN = keys.make("ann")
BOB, OF_BOB = keys.make("bob")
PICTURE_ID = hashlib.sha256(png()).hexdigest()
# A task of somebody else has to look like one that is not there.
TASK_ROUTES = [
    *[("GET", f"/api/generate/{what}/{{}}") for what in ("status", "result", "result-image")],
    ("GET", "/api/generate/stream/{}"),
    ("POST", "/api/generate/stream/{}/token"),
    ("POST", "/api/generate/async/cancel/{}"),
    *[("GET", f"/api/visualization/{{}}/{what}") for what in ("original", "generated", "download")],
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def speaks_for(address: str) -> dict[str, str]:
    """Return what a proxy on this machine says of a request."""
    return {"X-Forwarded-For": address}


def written(path: Path, text: str) -> Path:
    """Put a keys file in the place of the one before."""
    new = path.with_suffix(".new")
    new.write_text(text)
    return new.replace(path)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return written(tmp_path / "keys.toml", OF_ANN + OF_BOB)


@pytest.fixture
async def door(serve: Serve, keys_file: Path) -> AsyncIterator[WebClient]:
    """Provide a client without a key of a server that asks for one."""
    async with serve(keys_file=keys_file, log_level="info") as client:
        yield client


async def submitted(client: WebClient, headers: dict[str, str], **changes: Any) -> str:
    answer = await client.http.post("/api/generate", json=edit(**changes), headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


async def done(client: WebClient, headers: dict[str, str]) -> str:
    task_id = await submitted(client, headers)
    answer = await client.http.get(f"/api/generate/stream/{task_id}", headers=headers)
    assert '"done"' in answer.text
    return task_id


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("am_wrong"),
        {"Authorization": "Bearer"},
        bearer(ANN[:-1]),
        {"X-API-Key": "am_wrong"},
        {"Authorization": f"Basic {ANN}"},
        {"Authorization": ANN},
    ],
    ids=lambda headers: next(iter(headers.items()), "none")[0],
)
async def test_without_a_key_nothing_comes_in(door: WebClient, headers: dict[str, str]) -> None:
    task_id = await done(door, bearer(ANN))
    requests = [(method, path.format(task_id)) for method, path in TASK_ROUTES] + [
        ("GET", "/api/generate"), ("POST", "/api/generate"), ("POST", "/api/generate/async"),
        ("POST", "/api/smart-mask"), ("POST", "/api/smart-mask/cancel/x"), ("GET", "/nothing"),
        ("POST", "/api/smart-mask/detect"), ("POST", "/api/image-utils/extract-object"),
        ("HEAD", f"/api/generate/result-image/{task_id}"), ("OPTIONS", "/api/generate"),
    ]  # fmt: skip
    with capture_logs() as entries:
        for method, path in requests:
            body = edit() if method == "POST" else None
            answer = await door.http.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == 'Bearer realm="artmancer"'
            assert answer.headers["cache-control"] == "no-store"
            if method != "HEAD":
                assert isinstance(answer.json()["detail"], str)
    refused = [entry for entry in entries if entry["event"] == "request_refused"]
    assert 0 < len(refused) <= len(requests)
    for entry in refused:
        assert entry["status"] == 401
        assert entry["owner"] == "address:127.0.0.1"
    for key in (ANN, ANN[:-1], "am_wrong"):
        assert key not in str(entries)


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_health_and_the_documentation_stay_open(door: WebClient, path: str) -> None:
    assert (await door.http.get(path)).status_code in (200, 307)
    for method in ("GET", "HEAD"):
        answer = await door.http.request(method, "/livez", headers=bearer("am_wrong"))
        assert answer.status_code == 200


async def test_the_host_header_opens_nothing(door: WebClient) -> None:
    for end in ("/livez?", "/livez#", ":80/livez?"):
        async with peer(door) as stranger:
            head = f"GET /api/generate HTTP/1.1\r\nHost: 127.0.0.1{end}\r\n\r\n"
            await stranger.send(head.encode())
            # 421: such a name is not even answered.
            assert (await stranger.answer())[0] in (401, 421)


async def test_a_refused_upload_is_not_read(door: WebClient) -> None:
    async with peer(door) as stranger:
        await stranger.send(
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 60000000\r\n\r\n"
        )
        assert (await stranger.answer())[0] == 401


@pytest.mark.parametrize("headers", [bearer(ANN), {"X-API-Key": ANN}], ids=["Bearer", "X-API-Key"])
async def test_a_key_comes_in_by_either_header(door: WebClient, headers: dict[str, str]) -> None:
    task_id = await done(door, headers)
    basic = {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": ANN}  # a proxy's own passwords
    answer = await door.http.get(f"/api/generate/status/{task_id}", headers=basic)
    assert answer.json()["status"] == "done"


async def test_a_key_that_is_taken_out_of_the_file_is_refused(
    door: WebClient, keys_file: Path
) -> None:
    assert (await door.http.get("/api/generate", headers=bearer(ANN))).status_code == 200
    written(keys_file, OF_BOB)
    assert (await door.http.get("/api/generate", headers=bearer(ANN))).status_code == 401
    assert (await door.http.get("/api/generate", headers=bearer(BOB))).status_code == 200


async def test_anonymous_clients_may_be_let_in_beside_keys(serve: Serve, keys_file: Path) -> None:
    async with serve(keys_file=keys_file, allow_anonymous=True) as client:
        mine, nobody_s = await submitted(client, bearer(ANN)), await submitted(client, {})
        for headers, own, other in ((bearer(ANN), mine, nobody_s), ({}, nobody_s, mine)):
            status = "/api/generate/status/{}"
            assert (await client.http.get(status.format(own), headers=headers)).status_code == 200
            assert (await client.http.get(status.format(other), headers=headers)).status_code == 404
        # A wrong key is a mistake, and not nobody's.
        assert (await client.http.get("/api/generate", headers=bearer("x"))).status_code == 401


@pytest.mark.parametrize("with_keys", [True, False], ids=["keys", "addresses"])
async def test_the_job_of_another_is_as_unknown_as_one_of_nobody(
    serve: Serve, keys_file: Path, with_keys: bool
) -> None:
    me = bearer(ANN) if with_keys else speaks_for("192.0.2.1")
    you = bearer(BOB) if with_keys else speaks_for("2001:db8::1")
    async with serve(keys_file=keys_file if with_keys else None) as client:
        task_id = await done(client, me)
        for method, path in TASK_ROUTES:
            answers = [
                await client.http.request(method, path.format(each), headers=you)
                for each in (task_id, "no-such-task")
            ]
            assert [answer.status_code for answer in answers] == [404, 404], path
            ours, none = (answer.json()["detail"] for answer in answers)
            assert ours.replace(task_id, "no-such-task") == none
            mine = await client.http.request(method, path.format(task_id), headers=me)
            assert mine.status_code == 200, path
        lists = [
            (await client.http.get("/api/generate", headers=each)).json() for each in (me, you)
        ]
        assert [[task["task_id"] for task in each["tasks"]] for each in lists] == [[task_id], []]


async def test_a_cancel_of_another_s_job_changes_nothing(
    door: WebClient, triton: FakeTriton
) -> None:
    triton.hold()
    task_id = await submitted(door, bearer(ANN))
    cancel = f"/api/generate/async/cancel/{task_id}"
    assert (await door.http.post(cancel, headers=bearer(BOB))).status_code == 404
    triton.release()
    answer = await door.http.get(f"/api/generate/stream/{task_id}", headers=bearer(ANN))
    assert '"done"' in answer.text


async def test_an_address_of_a_proxy_counts_only_where_the_setting_names_it(serve: Serve) -> None:
    async with serve(trusted_proxies=()) as client:
        task_id = await submitted(client, speaks_for("192.0.2.1"))
        for headers in ({}, speaks_for("192.0.2.2")):
            answer = await client.http.get(f"/api/generate/status/{task_id}", headers=headers)
            assert answer.status_code == 200


async def test_an_ipv6_client_owns_its_network(client: WebClient) -> None:
    task_id = await submitted(client, speaks_for("2001:db8:1:2::3"))
    for address, status in (("2001:db8:1:2:ffff::9", 200), ("2001:db8:1:3::3", 404)):
        path = f"/api/generate/status/{task_id}"
        answer = await client.http.get(path, headers=speaks_for(address))
        assert answer.status_code == status


# --- the event stream of a browser ---


async def token_of(client: WebClient, task_id: str, key: str) -> str:
    path = f"/api/generate/stream/{task_id}/token"
    answer = (await client.http.post(path, headers=bearer(key))).json()
    assert answer["expires_in"] == keys.TOKEN_S
    return str(answer["token"])


async def test_a_token_opens_one_stream_and_nothing_else(door: WebClient) -> None:
    task_id, other = await done(door, bearer(ANN)), await done(door, bearer(ANN))
    token = await token_of(door, task_id, ANN)
    assert ANN not in token
    answer = await door.http.get(f"/api/generate/stream/{task_id}?token={token}")
    assert '"done"' in answer.text
    for path in (
        f"/api/generate/stream/{other}", f"/api/generate/status/{task_id}", "/api/generate",
        f"/api/generate/result/{task_id}", f"/api/generate/stream/{task_id}/token",
    ):  # fmt: skip
        method = "POST" if path.endswith("token") else "GET"
        answer = await door.http.request(method, path, params={"token": token})
        assert answer.status_code == 401, path
    for wrong in (f"{token}x", token.replace("ann", "bob", 1), "x"):
        answer = await door.http.get(f"/api/generate/stream/{task_id}?token={wrong}")
        assert answer.status_code == 401
        assert "token" in answer.json()["detail"]
        assert token not in answer.text


async def test_a_server_without_keys_asks_for_no_token(client: WebClient) -> None:
    task_id = await done(client, {})
    answer = (await client.http.post(f"/api/generate/stream/{task_id}/token")).json()
    assert answer == {"token": "", "expires_in": None}
    events = await client.http.get(f"/api/generate/stream/{task_id}?token=")
    assert '"done"' in events.text


# --- names ---


async def test_a_picture_is_named_by_its_owner_only(door: WebClient, triton: FakeTriton) -> None:
    async def ask(key: str, **changes: Any) -> httpx.Response:
        request = mask_request(**changes)
        return await door.http.post("/api/smart-mask", json=request, headers=bearer(key))

    by_name = {"image": None, "image_id": PICTURE_ID}
    assert (await ask(ANN)).json()["image_id"] == PICTURE_ID
    assert (await ask(ANN, **by_name)).json()["cached"]
    stranger = await ask(BOB, **by_name)
    assert stranger.status_code == 404
    assert stranger.json() == {"detail": f"Image ID not found or expired: {PICTURE_ID}"}
    assert not (await ask(BOB)).json()["cached"]
    assert (await ask(BOB, **by_name)).json()["cached"]


async def test_a_mask_request_is_cancelled_by_its_owner_only(
    door: WebClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.delay_s = 60
    request = mask_request(request_id="click")
    asking = [
        asyncio.create_task(door.http.post("/api/smart-mask", json=request, headers=bearer(key)))
        for key in (ANN, BOB)
    ]
    await eventually(lambda: triton.masks.live == 2)
    await door.http.post("/api/smart-mask/cancel/click", headers=bearer(BOB))
    assert (await asking[1]).status_code == 400
    assert not asking[0].done()
    triton.masks.release()
    assert (await asking[0]).status_code == 200


async def test_an_idempotency_key_is_its_owner_s(door: WebClient) -> None:
    async def submit(key: str, **changes: Any) -> httpx.Response:
        headers = {**bearer(key), "Idempotency-Key": "mine"}
        return await door.http.post("/api/generate", json=edit(**changes), headers=headers)

    first, again, other = [await submit(key) for key in (ANN, ANN, BOB)]
    ids = [answer.json()["task_id"] for answer in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert (await submit(BOB, seed=8)).status_code == 400


# --- shares ---


def refused(answer: httpx.Response, text: str) -> None:
    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert text in answer.json()["detail"]


async def test_one_owner_fills_half_of_the_queue(client: WebClient, triton: FakeTriton) -> None:
    # Two run, and 64 of 128 may wait.
    async with triton.engine:
        headers = speaks_for("192.0.2.1")
        ids = [await submitted(client, headers) for _ in range(2)]
        await eventually(lambda: triton.live == 2)
        ids += [await submitted(client, headers) for _ in range(64)]
        refused(
            await client.http.post("/api/generate", json=edit(), headers=headers),
            "as many waiting jobs as one may: 64",
        )
        stranger = await submitted(client, {})
        assert (await client.status(stranger))["queue_position"] == 1
        for task_id in (*ids, stranger):
            owner = {} if task_id == stranger else headers
            path = f"/api/generate/async/cancel/{task_id}"
            assert (await client.http.post(path, headers=owner)).status_code == 200


async def test_a_batch_delays_another_owner_by_one_edit(serve: Serve, triton: FakeTriton) -> None:
    first, you = speaks_for("192.0.2.1"), speaks_for("192.0.2.2")

    async with serve(max_in_flight=1, max_queue_size=256) as client:

        async def place(task_id: str, headers: dict[str, str]) -> int | None:
            path = f"/api/generate/status/{task_id}"
            answer = (await client.http.get(path, headers=headers)).json()
            place: int | None = answer["queue_position"]
            return place

        async with triton.engine:
            batch = [await submitted(client, first) for _ in range(101)]
            mine = [await client.submit() for _ in range(2)]
            yours = await submitted(client, you)
            # One of the batch runs. The others take turns, and each is told its true place.
            order = [mine[0], yours, batch[1], mine[1], *batch[2:]]
            owners = {yours: you} | dict.fromkeys(batch, first)
            async with asyncio.timeout(60):  # places are sent with the pings
                for number, task_id in enumerate(order, 1):
                    while await place(task_id, owners.get(task_id, {})) != number:
                        await asyncio.sleep(0.02)
        await client.follow(mine[1])
        assert list(triton.requests)[:5] == [batch[0], *order[:4]]


async def test_bytes_of_waiting_jobs_have_a_share(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    big = b64(encoded("BMP", (200, 200)))
    async with serve(store_bytes=1_600_000, max_in_flight=1) as client:
        me, you = speaks_for("192.0.2.1"), speaks_for("192.0.2.2")
        answers = [
            await client.http.post("/api/generate", json=edit(input_image=big), headers=me)
            for _ in range(4)
        ]
        assert answers[0].status_code == 200
        refused(answers[-1], "as many bytes in waiting jobs as one may: 400000")
        await submitted(client, you, input_image=big)
        triton.release()


async def test_a_key_has_limits_of_its_own(
    serve: Serve, triton: FakeTriton, keys_file: Path
) -> None:
    written(
        keys_file,
        f"{OF_ANN}max_waiting = 2\nmax_running = 1\n{OF_BOB}per_minute = 0.15\nmax_bytes = 1\n",
    )
    async with serve(keys_file=keys_file) as client:
        async with triton.engine:
            ids = [await submitted(client, bearer(ANN))]
            await eventually(lambda: triton.at_engine)
            ids += [await submitted(client, bearer(ANN)) for _ in range(2)]
            refused(
                await client.http.post("/api/generate", json=edit(), headers=bearer(ANN)),
                "waiting jobs as one may: 2",
            )
            health = (await client.http.get("/api/system/health")).json()["services"]
            assert health["job_manager"] == {"status": "healthy", "waiting": 2, "running": 1}
            refused(
                await client.http.post("/api/generate", json=edit(), headers=bearer(BOB)),
                "bytes in waiting jobs as one may: 1",
            )
        for task_id in ids:
            await client.http.get(f"/api/generate/stream/{task_id}", headers=bearer(ANN))


async def test_a_key_has_a_budget_by_the_minute(serve: Serve, keys_file: Path) -> None:
    written(keys_file, f"{OF_ANN}per_minute = 0.11\n")
    async with serve(keys_file=keys_file) as client:
        # What is refused costs nothing; the smallest edit costs a tenth of a usual one.
        await client.http.post("/api/generate", json=edit(seed=-1), headers=bearer(ANN))
        for _ in range(2):
            await submitted(client, bearer(ANN))
        answer = await client.http.post("/api/generate", json=edit(), headers=bearer(ANN))
        refused(answer, "0.11 usual edits a minute")
        # Less what has come back since, on a busy machine.
        assert 10 < int(answer.headers["retry-after"]) <= 52


async def test_many_results_cost_another_owner_none(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.info = {"debug_info": {"conditional_images": ["x" * 100_000]}}
    async with serve(store_bytes=1_000_000) as client:
        mine = await done(client, speaks_for("192.0.2.1"))
        theirs = [await done(client, speaks_for("192.0.2.2")) for _ in range(20)]
        path = f"/api/generate/result/{mine}"
        assert (await client.http.get(path, headers=speaks_for("192.0.2.1"))).status_code == 200
        gone = await client.http.get(
            f"/api/generate/result/{theirs[0]}", headers=speaks_for("192.0.2.2")
        )
        assert gone.status_code == 404


async def test_slow_uploads_of_one_owner_leave_room_for_others(serve: Serve) -> None:
    bounds = {"max_pending_body_bytes": 400_000, "max_body_bytes": 200_000}
    async with serve(**bounds) as client, contextlib.AsyncExitStack() as stack:
        head = (
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nContent-Length: 150000\r\n\r\n"
        )
        slow = [await stack.enter_async_context(peer(client)) for _ in range(3)]
        for each in slow:
            await each.send(head + b" " * 100_000)
        answers = asyncio.as_completed([asyncio.create_task(each.answer()) for each in slow])
        status, headers, body = await next(iter(answers))
        assert status == 429
        assert int(headers["retry-after"]) > 0
        assert body["detail"] == "This client has as many bytes of uploads as one may: 200000"
        big = b64(encoded("BMP", (150, 150)))
        assert (await client.finish(edit(input_image=big)))[-1]["status"] == "done"
