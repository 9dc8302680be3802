"""Work that is cancelled because its client has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs

from frontend.errors import UnavailableError
from frontend.http.refusals import RefusalLog
from frontend.http.wanted_route import WantedRoute

if TYPE_CHECKING:
    from starlette.types import Message


@pytest.mark.parametrize(
    ("raised", "logged"),
    [(None, []), (UnavailableError("busy"), []), (RuntimeError("lost"), ["request_crashed"])],
    ids=["nothing", "a refusal", "a fault"],
)
async def test_what_fails_behind_a_client_that_has_left_is_logged(
    raised: Exception | None, logged: list[str]
) -> None:
    router = APIRouter(route_class=WantedRoute)
    begun = asyncio.Event()

    @router.post("/work")
    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            if raised:
                raise raised

    app = FastAPI(routes=router.routes)
    app.state.refusals = RefusalLog()
    messages = [{"type": "http.request", "body": b""}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/work", "headers": [], "query_string": b""}
    with capture_logs() as lines:
        async with asyncio.timeout(30):
            await app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert [line["event"] for line in lines] == logged
