from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from frontend import serving
from frontend.launcher import ports
from frontend.launcher.errors import LaunchError
from frontend.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

# Sends itself every signal once its server has begun to stop at the end of its work.
SIGNALS_AT_STOP = """
import os
from frontend import serving, signals
from frontend.settings import Settings

stop = serving._stop

def at_stop(server, *arguments):
    for number in signals.ENDING:
        os.kill(os.getpid(), number)
    stop(server, *arguments)
    print("whole")

serving._stop = at_stop
signals.stop_on_signals()
with serving.running(Settings()):
    pass
print("ended")
"""


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


def test_a_stop_at_the_end_of_the_work_hears_no_signal(tmp_path: Path) -> None:
    """As that of `make demo`."""
    port, nobody = ports.free(2)
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_AT_STOP],
        env=os.environ
        | {
            "ARTMANCER_PORT": str(port),
            "ARTMANCER_TRITON_URL": f"127.0.0.1:{nobody}",
            "ARTMANCER_STATE_FOLDER": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "whole\nended\n"), done.stderr
