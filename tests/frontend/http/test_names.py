"""Which names the server answers to, and whose pages may send to it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.fakes.web_client import edit
from tests.frontend.peer import peer

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient
    from tests.frontend.conftest import Serve

MACHINE = socket.gethostname()
OURS = [
    *("localhost", "LOCALHOST:8080", "localhost.:80", "app.localhost", MACHINE, f"{MACHINE}:80"),
    *("127.0.0.1", "127.0.0.2:8080", "[::1]:8080", "192.0.2.7", "192.0.2.7:80", "[2001:db8::1]"),
    *("localhost:", "[::1]:"),
]
STRANGERS = [
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("xlocalhost", "localhost@evil.example", "evil.example@localhost", "localhost/evil", "[::1"),
    *("localhost:80:80", "localhost, evil.example", "локал", "[", "a" * 20_000),
]
PATHS = ["/", "/livez", "/readyz", "/docs", "/openapi.json", "/api/system/health", "/no/such"]


@pytest.mark.parametrize("host", OURS)
async def test_it_answers_to_its_own_names(client: WebClient, host: str) -> None:
    assert (await client.http.get("/livez", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", STRANGERS, ids=lambda host: host[:25])
async def test_it_does_not_answer_to_a_strangers_name(client: WebClient, host: str) -> None:
    answer = await client.http.get("/livez", headers={b"Host": host.encode()})
    assert answer.status_code == 421
    assert answer.json()["detail"].startswith("Host: this server does not answer to ")
    assert "ARTMANCER_ALLOWED_HOSTS" in answer.json()["detail"]
    assert len(answer.content) < 400
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_no_path_and_no_method_is_left_out(client: WebClient, method: str, path: str) -> None:
    for headers, status in (
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
    ):
        answer = await client.http.request(method, path, headers=headers)
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers


async def test_a_page_that_was_made_to_lead_here_submits_nothing(client: WebClient) -> None:
    headers = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}
    answer = await client.http.post("/api/generate", json=edit(), headers=headers)
    assert answer.status_code == 421
    assert "task_id" not in answer.json()


async def test_a_client_that_is_no_browser_may_name_nothing(client: WebClient) -> None:
    async with peer(client) as old:
        await old.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert (await old.answer())[0] == 200


async def test_two_hosts_are_none(client: WebClient) -> None:
    async with peer(client) as stranger:
        await stranger.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert (await stranger.answer())[0] == 421


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        # Its own page, at whatever address it is reached, and through a proxy that adds TLS.
        ("127.0.0.1:8080", "http://127.0.0.1:8080", 200),
        ("192.0.2.7:8080", "http://192.0.2.7:8080", 200),
        ("api.example", "https://api.example", 200),
        ("frontend:8080", "https://api.example", 200),
        # A page of this machine, such as a web client's that a development server serves.
        ("127.0.0.1:8080", "http://localhost:3000", 200),
        ("localhost:8080", "http://[::1]:3000", 200),
        ("localhost:8080", "http://evil.example", 403),
        ("localhost:8080", "https://localhost.evil.example", 403),
        ("localhost:8080", "http://192.0.2.7", 403),
        ("localhost:8080", "null", 403),
        ("localhost:8080", "", 403),
        ("localhost:8080", "file://localhost", 403),
        ("", "http://evil.example", 403),
    ],
)
async def test_only_its_own_pages_may_send(
    serve: Serve, host: str, origin: str, status: int
) -> None:
    async with serve(allowed_hosts=("api.example", "Frontend")) as client:
        headers = {"Host": host, "Origin": origin}
        answer = await client.http.post("/api/smart-mask/cancel/x", headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["detail"].startswith("Origin: pages of ")


async def test_what_a_preflight_grants_is_not_refused_afterwards(serve: Serve) -> None:
    asks = {"Access-Control-Request-Method": "POST"}
    async with serve(cors_origins=("https://web.example",)) as client:
        for origin, asked, sent in (
            ("https://web.example", 200, 200),
            ("https://evil.example", 403, 403),
        ):
            headers = {"Origin": origin}
            answer = await client.http.options("/api/generate", headers=headers | asks)
            assert answer.status_code == asked
            answer = await client.http.post("/api/generate", json=edit(), headers=headers)
            assert answer.status_code == sent


async def test_a_preflight_is_refused_in_the_form_of_all_refusals(serve: Serve) -> None:
    async with serve(cors_origins=("https://web.example",)) as client:
        for origin, method, what in (
            ("http://localhost:3000", "POST", "origin"),
            ("https://web.example", "DELETE", "method"),
        ):
            headers = {"Origin": origin, "Access-Control-Request-Method": method}
            answer = await client.http.options("/api/generate", headers=headers)
            assert (answer.status_code, answer.json()) == (
                400,
                {"detail": f"Disallowed CORS {what}"},
            )
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST"
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if what == "method" else None)


async def test_an_operator_may_allow_everything(serve: Serve) -> None:
    async with serve(allowed_hosts=("*",), cors_origins=("*",)) as client:
        headers = {"Host": "any.example", "Origin": "null"}
        assert (await client.http.get("/livez", headers=headers)).status_code == 200
