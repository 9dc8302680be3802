from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from frontend.errors import StoreAwayError
from frontend.http.app import create_app
from tests.fakes.web_client import WebClient
from tests.frontend.conftest import listening

if TYPE_CHECKING:
    from frontend.settings import Settings
    from tests.fakes.triton_server import FakeTriton


@pytest.mark.parametrize("path", ["/ping", "/livez", "/readyz", "/readyz/store", "/api/health"])
async def test_a_healthy_server_says_so(client: WebClient, path: str) -> None:
    answer = await client.http.get(path)
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"


async def test_a_store_that_is_away_is_no_matter_of_the_tritons(
    settings: Settings, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreAwayError("The job store does not answer: it is away")

    app = create_app(settings)
    async with listening(app) as url, WebClient(url) as client:
        await triton.kill()
        async with asyncio.timeout(30):
            while (await client.http.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.02)
        assert (await client.http.get("/readyz/store")).status_code == 200
        await triton.start()
        with monkeypatch.context() as broken:
            broken.setattr(app.state.services.jobs.driver, "read", away)
            answer = await client.http.get("/readyz/store")
        assert (answer.status_code, answer.json()) == (
            503,
            {"detail": "The job store does not answer: it is away"},
        )


async def test_the_system_is_shown_part_by_part(client: WebClient) -> None:
    assert (await client.http.get("/api/system/health")).json() == {
        "status": "healthy",
        "services": {
            "generation": {
                "status": "healthy",
                "bundle": "fake",
                "adapters": ["insertion", "removal", "white-balance"],
                "tritons": 1,
                "tritons_ready": 1,
            },
            "segmentation": {
                "status": "healthy",
                "model": "fake-masks",
                "tritons": 1,
                "tritons_ready": 1,
                "waiting": 0,
                "running": 0,
                "cache": {"images": 0, "hits": 0},
                "image_store": {"images": 0, "bytes": 0},
            },
            "image_utils": {"status": "healthy"},
            "job_manager": {"status": "healthy", "waiting": 0, "running": 0},
        },
    }


async def test_a_network_that_does_not_answer_is_shown(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.masks.behaviour.network_answers = False
    async with asyncio.timeout(30):
        while (await client.http.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.02)
    health = (await client.http.get("/api/system/health")).json()
    assert health["status"] == "degraded"
    assert health["services"]["segmentation"] == {
        "status": "unhealthy",
        "reason": "the mask network does not answer",
    }
    assert health["services"]["generation"]["status"] == "healthy"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/generate/multi-steps"),
        ("POST", "/api/image-utils/white-balance"),
        ("GET", "/api/debug/status"),
        ("GET", "/api/debug/sessions/x/images/y"),
        ("POST", "/api/debug/cleanup"),
    ],
)
async def test_what_is_not_built_is_501(client: WebClient, method: str, path: str) -> None:
    answer = await client.http.request(method, path)
    assert answer.status_code == 501
    assert answer.json() == {"detail": "This endpoint is not implemented"}
