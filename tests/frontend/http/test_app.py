from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from frontend.http.app import create_app
from tests.fakes.web_client import WebClient, edit
from tests.frontend.conftest import listening
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from frontend.settings import Settings
    from tests.frontend.conftest import Serve

MANDATORY = {
    "/api/generate": "post",
    "/api/generate/async": "post",
    "/api/generate/status/{task_id}": "get",
    "/api/generate/result/{task_id}": "get",
    "/api/generate/result-image/{task_id}": "get",
    "/api/generate/stream/{task_id}": "get",
    "/api/generate/async/cancel/{task_id}": "post",
    "/api/visualization/{task_id}/original": "get",
    "/api/visualization/{task_id}/generated": "get",
    "/api/visualization/{task_id}/download": "get",
    "/api/system/health": "get",
    "/api/smart-mask": "post",
    "/api/smart-mask/cancel/{request_id}": "post",
    "/api/smart-mask/detect": "post",
    "/api/image-utils/extract-object": "post",
}


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/static-offline-docs/nothing", 404, "Not Found"),
        ("PUT", "/api/generate", 405, "Method Not Allowed"),
        ("DELETE", "/api/system/health", 405, "Method Not Allowed"),
    ],
)
async def test_the_frameworks_own_refusals_have_the_same_form(
    client: WebClient, method: str, path: str, status: int, detail: str
) -> None:
    answer = await client.http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert ("allow" in answer.headers) == (status == 405)


async def test_several_faults_are_named_but_not_all(client: WebClient) -> None:
    request = edit(prompt=1, seed=-1, width=1, height=1, num_inference_steps=0)
    answer = await client.http.post("/api/generate", json=request)
    sentences = answer.json()["detail"].split("; ")
    assert [sentence.split(":")[0] for sentence in sentences] == ["prompt", "width", "height"]


async def test_a_crash_is_500_without_its_text(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret")

    async with listening(app) as url, WebClient(url) as client:
        answer = await client.http.get("/crash")
        assert (answer.status_code, answer.json()) == (500, {"detail": "Internal server error"})
        await client.finish()


# Kludex/starlette#1116: browsers report an unreadable 500 as a CORS error.
async def test_a_browser_may_read_a_crash(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"cors_origins": ("http://web",)}))

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret")

    async with listening(app) as url, WebClient(url) as client:
        answer = await client.http.get("/crash", headers={"Origin": "http://web"})
        assert answer.status_code == 500
        assert answer.headers["access-control-allow-origin"] == "http://web"


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_a_body_that_is_said_to_be_as_it_is_is_read(client: WebClient, encoding: str) -> None:
    answer = await client.http.post(
        "/api/generate", json=edit(), headers={"Content-Encoding": encoding}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/generate", "GET, HEAD, POST"),
        ("/api/generate/async", "POST"),
        ("/api/generate/status/nobody", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_right_ones(
    client: WebClient, path: str, methods: str
) -> None:
    for wrong in ("PUT", "OPTIONS"):
        answer = await client.http.request(wrong, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"a": "\x01"}', "body: not JSON: Invalid control character at character 7"),
        (b'{"a": "b', "body: not JSON: Unterminated string starting at character 6"),
        (b'{"a": 1', "body: not JSON: Expecting ',' delimiter at character 7"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "body: a number has too many digits"),
        (b'{"a":' * 5000, "body: not readable as JSON"),
        (b'{"a": "\xff"}', "body: not readable as JSON"),
    ],
)
async def test_a_body_that_is_no_json_is_told_why(
    client: WebClient, body: bytes, detail: str
) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/api/generate", "/api/smart-mask", "/api/image-utils/extract-object"):
        answer = await client.http.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (400, {"detail": detail})


# BerriAI/litellm#41567: SDKs compress large bodies.
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_compressed_body_is_refused_by_name(client: WebClient, encoding: str) -> None:
    body = gzip.compress(json.dumps(edit()).encode())
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    for path in ("/api/generate/async", "/api/smart-mask", "/api/image-utils/extract-object"):
        answer = await client.http.post(path, content=body, headers=headers)
        assert answer.status_code == 415
        assert answer.json()["detail"].startswith(f"Content-Encoding: {encoding} ")


async def test_a_second_line_of_a_header_counts_too(client: WebClient) -> None:
    lines = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    answer = await client.http.post("/api/smart-mask", content=b"x", headers=lines)
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith("Content-Encoding: identity, gzip ")


@pytest.mark.parametrize("lines", [["gzip, chunked"], ["gzip", "chunked"], ["identity"]], ids=str)
async def test_a_transfer_coding_is_refused_by_name(client: WebClient, lines: list[str]) -> None:
    headers = "".join(f"Transfer-Encoding: {line}\r\n" for line in lines)
    for path in ("/api/generate/async", "/api/smart-mask", "/api/image-utils/extract-object"):
        async with peer(client) as connected:
            await connected.send(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
                "Content-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n".encode()
            )
            status, _, body = await connected.answer()
            assert status == 501
            assert body["detail"].startswith(f"Transfer-Encoding: {', '.join(lines)} ")


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
async def test_a_chunked_body_is_read(client: WebClient, coding: str) -> None:
    body = json.dumps(edit()).encode()
    async with peer(client) as connected:
        await connected.send(
            f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {coding}\r\n"
            f"Content-Type: application/json\r\n\r\n{len(body):x}\r\n".encode()
            + body
            + b"\r\n0\r\n\r\n"
        )
        assert (await connected.answer())[0] == 200


async def test_browsers_of_the_named_origins_may_call(serve: Serve) -> None:
    asked = {"Origin": "http://web", "Access-Control-Request-Method": "POST"}
    async with serve(cors_origins=("http://web",), max_body_bytes=10) as client:
        answer = await client.http.options("/api/generate", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "http://web"
        # A refusal that the browser may not read is no help.
        answer = await client.http.post("/api/generate", json=edit(), headers=asked)
        assert answer.status_code == 413
        assert answer.headers["access-control-allow-origin"] == "http://web"
    # Pages of this machine may send, and yet read nothing.
    of_this_machine = asked | {"Origin": "http://localhost:3000"}
    async with serve() as client:
        answer = await client.http.get("/livez", headers=of_this_machine)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
        answer = await client.http.options("/api/generate", headers=of_this_machine)
        assert answer.status_code == 400


async def test_the_documentation_names_every_endpoint_and_only_true_answers(
    client: WebClient,
) -> None:
    assert (await client.http.get("/docs")).status_code == 200
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    assert MANDATORY.items() <= {path: next(iter(each)) for path, each in paths.items()}.items()
    for each in paths.values():
        for operation in each.values():
            assert "422" not in operation["responses"]
            assert "4XX" in operation["responses"]


async def test_every_documented_example_is_accepted(client: WebClient) -> None:
    schemas = (await client.http.get("/openapi.json")).json()["components"]["schemas"]
    for example in schemas["GenerationRequest"]["examples"]:
        await client.finish(example)
    for name, path in [
        ("SmartMaskRequest", "/api/smart-mask"),
        ("DetectRequest", "/api/smart-mask/detect"),
        ("ExtractRequest", "/api/image-utils/extract-object"),
    ]:
        for example in schemas[name]["examples"]:
            answer = await client.http.post(path, json=example)
            assert answer.json()["success"] is True, answer.text


def test_uvicorns_factory_needs_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_LOG_LEVEL", "error")
    assert create_app().title == "ArtMancer"
