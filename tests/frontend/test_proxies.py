"""A proxy that the environment names, beside all that asks a server on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx
import pytest

import triton_entrypoint
import triton_health
from benchmarks.client import connect
from frontend.client import ApiError, Client
from frontend.errors import ServingError
from frontend.triton.client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
HEALTH = re.compile(r"HEALTHCHECK.*?CMD (\[.*?\])$", re.DOTALL | re.MULTILINE)
TIMEOUT_S = 10.0


class Door:
    """Notes what is said by who comes, and sends each away without an answer."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.said: list[str] = []
        self.visited = threading.Event()
        threading.Thread(target=self._note, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _note(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                visitor, _ = self._listener.accept()
                with visitor:
                    visitor.settimeout(TIMEOUT_S)
                    with contextlib.suppress(OSError):
                        self.said.append(visitor.recv(65536).decode(errors="replace"))
                self.visited.set()


def the_client(address: str) -> None:
    with pytest.raises(ApiError), Client(f"http://{address}") as client:
        client.result("x")


def the_channel_to_triton(address: str) -> None:
    async def ask() -> None:
        client = TritonClient(address)
        try:
            with pytest.raises(ServingError):
                await client.cancel_edit("")
        finally:
            await client.close()

    asyncio.run(ask())


def the_benchmarks(address: str) -> None:
    async def ask() -> None:
        async with connect(f"http://{address}") as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/readyz")

    asyncio.run(ask())


def the_health_of_tritons_container(address: str) -> None:
    assert triton_health.ask(f"http://{address}", "image_edit")


def the_entry_point(address: str) -> None:
    assert not triton_entrypoint.is_ready(f"http://{address}")


def the_health_of_the_frontends_container(address: str) -> None:
    [found] = HEALTH.findall((ROOT / "docker" / "frontend.Dockerfile").read_text())
    _, *arguments = json.loads(found.replace("127.0.0.1:8080", address))
    assert subprocess.run([sys.executable, *arguments], capture_output=True).returncode == 1


@pytest.mark.parametrize(
    "ask",
    [
        the_client,
        the_channel_to_triton,
        the_benchmarks,
        the_health_of_tritons_container,
        the_entry_point,
        the_health_of_the_frontends_container,
    ],
)
def test_it_is_not_asked_for_this_machine(
    ask: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Door() as server, Door() as proxy:
        behind(proxy, monkeypatch)
        ask(server.address)
        assert server.visited.wait(TIMEOUT_S)
        # Somebody else may look for a server that had the proxy's port before.
        assert not any(server.address in text for text in proxy.said)


def test_it_is_asked_for_a_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with Door() as proxy:
        behind(proxy, monkeypatch)
        the_client("artmancer.invalid")
    assert any("artmancer.invalid" in text for text in proxy.said)


def behind(proxy: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the proxy in the environment, for every address."""
    for name in ("no_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{proxy.address}")
        monkeypatch.delenv(name.upper(), raising=False)
