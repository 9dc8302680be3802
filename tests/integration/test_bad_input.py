"""Every bad request is a 400 that names its field, and the real server works on after all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.bad_inputs import BAD_INPUTS

from .web_client import WebClient, decode

if TYPE_CHECKING:
    from .server import Server


async def test_bad_requests_leave_the_server_as_it_was(server: Server) -> None:
    async with WebClient(server.url) as client:
        _, before = await client.finish()
        for case in BAD_INPUTS:
            answer = await client.http.post(
                "/api/generate/async",
                content=case.content,
                headers={"Content-Type": case.content_type},
            )
            assert answer.status_code == 400, (case.name, answer.text)
            assert answer.json()["detail"].startswith(case.field), (case.name, answer.text)
        _, after = await client.finish()
        assert (decode(before["image"]) == decode(after["image"])).all()
