"""What browsers and caches may do with answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from frontend.http import safe_headers
from tests.fakes.web_client import WebClient, b64, edit, scene, square_mask

if TYPE_CHECKING:
    import httpx

    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

PATHS = [
    *("/livez", "/readyz", "/api/system/health", "/api/generate", "/docs", "/openapi.json"),
    *("/no/such/page", "/api/generate/status/x", "/api/generate/result/x", "/"),
]


def max_age(answer: httpx.Response) -> int:
    """Return for how many seconds the client, and nobody else, may keep an answer."""
    return int(answer.headers["cache-control"].removeprefix("private, max-age="))


@pytest.mark.parametrize("path", PATHS)
async def test_no_answer_is_stored_or_taken_for_anything_else(client: WebClient, path: str) -> None:
    answer = await client.http.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert ("sandbox" in policy) == (path != "/docs")


async def test_answers_to_posts_are_not_stored(client: WebClient) -> None:
    picture = {"image": b64(scene()), "mask": b64(square_mask())}
    for path, body in (
        ("/api/generate", edit()),
        ("/api/smart-mask", picture),
        ("/api/image-utils/extract-object", picture),
        ("/api/generate", {}),
    ):
        answer = await client.http.post(path, json=body)
        assert answer.headers["cache-control"] == "no-store", path


@pytest.mark.parametrize(
    "path",
    [
        *("generate/result/{}", "generate/result-image/{}"),
        *("visualization/{}/original", "visualization/{}/generated", "visualization/{}/download"),
    ],
)
async def test_a_result_is_kept_by_its_client_alone_and_as_long_as_by_the_server(
    serve: Serve, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(result_ttl_s=100.0) as client:
        _, result = await client.finish()
        path = f"/api/{path}".format(result["task_id"])
        assert 70 < max_age(await client.http.get(path)) < 100
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 60)
        answer = await client.http.get(path)
        assert 10 < max_age(answer) < 40
        assert answer.headers["vary"].startswith("Authorization, X-API-Key, Cookie")


async def test_the_original_of_a_job_that_runs_is_not_stored(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve() as client:
        task_id = await client.submit()
        answer = await client.http.get(f"/api/visualization/{task_id}/original")
        assert answer.headers["cache-control"] == "no-store"
        await client.cancel(task_id)


async def test_origins_that_may_call_may_show_pictures(serve: Serve) -> None:
    async with serve(cors_origins=("https://a.example",)) as client:
        answer = await client.http.get("/livez", headers={"Origin": "https://a.example"})
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_what_is_about_to_go_is_not_stored() -> None:
    assert safe_headers.private_for(0.9) == {"Cache-Control": "no-store"}
    assert safe_headers.private_for(-5) == {"Cache-Control": "no-store"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/generate/status/{}", 404),
        ("GET", "/api/generate/result/{}", 404),
        ("GET", "/api/generate/stream/{}", 404),
        ("GET", "/api/visualization/{}/original", 404),
        ("POST", "/api/generate/async/cancel/{}", 404),
        ("POST", "/api/smart-mask/cancel/{}", 200),
        ("GET", "/{}", 404),
    ],
)
async def test_an_id_that_a_client_made_up_is_not_echoed_at_length(
    client: WebClient, method: str, path: str, status: int
) -> None:
    answer = await client.http.request(method, path.format("i" * 30_000))
    assert answer.status_code == status
    assert len(answer.content) < 500


async def test_an_image_id_is_not_echoed_at_length(client: WebClient) -> None:
    body = {"image_id": "i" * 60_000, "auto_detect": True}
    answer = await client.http.post("/api/smart-mask", json=body)
    assert answer.status_code in (400, 404)
    assert len(answer.content) < 500
