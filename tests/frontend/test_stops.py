"""What those meet whose requests are open when the frontend stops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from frontend import serving
from frontend.http.app import create_app
from frontend.jobs import places
from frontend.jobs.sql_store import SqlStore
from tests.fakes.bad_masks import mask_request
from tests.fakes.triton_server import task_of
from tests.fakes.web_client import WebClient, edit
from tests.frontend.conftest import started, url_of
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.http.connections import BoundedProtocol
    from frontend.jobs.sqlite import SqliteDriver
    from frontend.jobs.store import Created, NewJob
    from frontend.settings import Settings
    from tests.fakes.triton_server import FakeTriton

HALF_AN_UPLOAD = (
    b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
    b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"prompt": '
)


@contextlib.asynccontextmanager
async def connected(
    server: serving._Server, request: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, BoundedProtocol]]:
    """Send bytes on a new connection; yield its reader, and the server's end of it."""
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        writer.write(request)
        await eventually(lambda: server.server_state.tasks)
        [connection] = server.server_state.connections
        yield reader, cast("BoundedProtocol", connection)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
def _no_time_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut open connections at once, and cancel what serves them never."""
    monkeypatch.setattr(serving, "_OPEN_STREAMS_S", 0)
    monkeypatch.setattr(serving, "_CUT_S", 3600)


@pytest.mark.usefixtures("_no_time_for_the_last")
async def test_half_an_upload_is_cut_and_no_fault(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    with capture_logs() as lines:
        async with started(app, settings) as server, connected(server, HALF_AN_UPLOAD) as (end, _):
            server.should_exit = True
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = await end.read()
    assert answer == b""
    assert [line for line in lines if line["log_level"] not in ("debug", "info")] == []
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []


@pytest.mark.usefixtures("_no_time_for_the_last")
async def test_an_answer_that_nobody_reads_is_cut_and_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**16)
            await asyncio.sleep(0)  # as whoever reads from a store

    app = FastAPI()
    app.add_api_route("/endless", lambda: StreamingResponse(endless()))
    request = b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with started(app) as server, connected(server, request) as (_, connection):
        await eventually(lambda: connection.flow.write_paused)
        server.should_exit = True
        await eventually(lambda: not server.server_state.tasks)
    assert caplog.records == []


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_a_job_that_came_before_the_stop_is_not_refused(
    settings: Settings,
    triton: FakeTriton,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    create = SqlStore.create

    async def create_before_the_stop(store: SqlStore, job: NewJob) -> Created:
        created = await create(store, job)
        server.should_exit = True
        await eventually(lambda: cast("SqliteDriver", store.driver)._closed)
        return created

    monkeypatch.setattr(SqlStore, "create", create_before_the_stop)
    monkeypatch.setattr(serving, "_OPEN_STREAMS_S", 60)  # longer than a machine stands still
    triton.hold()
    async with (
        started(create_app(settings), settings) as server,
        WebClient(url_of(server)) as client,
    ):
        answer = await client.http.post("/api/generate", json=edit(), headers=headers)
    assert answer.status_code == 200, answer.text
    store = await places.open_store(settings)
    assert [job.job_id for job in (await store.view()).waiting] == [answer.json()["task_id"]]
    await store.close()


async def test_no_edit_waits_for_a_mask_before_it_may_wait_again(
    settings: Settings, triton: FakeTriton
) -> None:
    settings = settings.model_copy(update={"cancel_timeout_s": 3600})
    triton.hold()
    triton.masks.behaviour.delay_s = 3600
    triton.masks.behaviour.stubborn = True
    async with (
        started(create_app(settings), settings) as server,
        WebClient(url_of(server)) as client,
    ):
        task_id = await client.submit()
        await client.wait_status(task_id, "processing")
        finding = asyncio.create_task(client.http.post("/api/smart-mask", json=mask_request()))
        await eventually(lambda: triton.masks.live)
        server.should_exit = True
        await eventually(lambda: not triton.live)
        assert triton.in_band_cancels == [task_id]
        assert triton.masks.live
        triton.masks.release()
        assert (await finding).status_code == 503
    assert [task_of(each) for each in triton.starts] == [task_id]
