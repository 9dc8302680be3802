from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from frontend import serving
from frontend.launcher import ports
from frontend.launcher.errors import LaunchError
from frontend.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_a_port_is_taken_while_the_models_load() -> None:
    with serving._bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(LaunchError, match=f"cannot listen on 127.0.0.1:{port}"):
            serving._bind("127.0.0.1", port)


def test_connections_that_are_closing_keep_no_server_from_its_port(tmp_path: Path) -> None:
    port, nobody = ports.free(2)
    settings = Settings(port=port, triton_url=f"127.0.0.1:{nobody}", state_folder=tmp_path)
    for _ in range(2):
        with (
            serving.running(settings),
            socket.create_connection(("127.0.0.1", port)) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            # The server closes first, so the connection stays with its port for a minute.
            assert answer.read().startswith(b"HTTP/1.1 200 ")
