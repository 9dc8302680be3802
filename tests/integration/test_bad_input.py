"""Every bad request is a 400 that names its field, and the real server works on after all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.bad_inputs import BAD_INPUTS
from tests.fakes.bad_masks import BAD_EXTRACTS, BAD_MASKS
from tests.fakes.web_client import WebClient, b64, decode

from .mask_scenes import scene

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


async def test_bad_mask_requests_leave_the_server_as_it_was(server: Server) -> None:
    drawn = scene(1, 256)
    good = {"image": b64(drawn.png), "points": [drawn.middle]}
    async with WebClient(server.url) as client:
        before = await client.http.post("/api/smart-mask", json=good)
        assert before.status_code == 200
        for case in (*BAD_MASKS, *BAD_EXTRACTS):
            answer = await client.http.post(
                case.path, content=case.content, headers={"Content-Type": case.content_type}
            )
            assert answer.status_code == case.status, (case.name, answer.text)
            assert answer.json()["detail"].startswith(case.detail), (case.name, answer.text)
        after = await client.http.post("/api/smart-mask", json=good)
        assert after.json()["mask_base64"] == before.json()["mask_base64"]
        health = (await client.http.get("/api/system/health")).json()
        assert health["services"]["segmentation"]["running"] == 0
