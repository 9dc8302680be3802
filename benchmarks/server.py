"""Owns the server under measurement: a running one, or one that is started to be measured."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from frontend.launcher import ports

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
# What the command `artmancer` does.
START = "from frontend.cli.main import main; main()"


@dataclass(frozen=True)
class Endpoints:
    """Where the server listens."""

    rest: str
    """URL of the REST interface."""
    grpc: str
    """Triton's host:port."""


class Server:
    """An `artmancer serve` on its own ports, which can die and come back.

    Args:
        folder: for its log, and for its jobs unless a setting names another one.
        checkout: the folder of this project, maybe of another version, that it is started from.
        settings: by name without the ARTMANCER_ prefix.
    """

    def __init__(self, folder: Path, checkout: Path = ROOT, **settings: str) -> None:
        self.port, grpc = ports.free(2)
        self.endpoints = Endpoints(f"http://127.0.0.1:{self.port}", f"127.0.0.1:{grpc}")
        self._checkout = checkout
        self._log = folder / "log"
        self._environment = {
            "ARTMANCER_STATE_FOLDER": str(folder),  # its jobs are no other server's
            **os.environ,
            "PYTHONPATH": str(checkout),
            "ARTMANCER_PORT": str(self.port),
            "ARTMANCER_TRITON_GRPC_PORT": str(grpc),
            **{f"ARTMANCER_{name}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready on return.

        Raises:
            RuntimeError: it ended or was not ready in time; the text holds the end of its log.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, "serve"],
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._checkout,
            )
        if not self._becomes_ready(self._process):
            end = self._log.read_bytes()[-4000:].decode(errors="replace")
            raise RuntimeError(f"artmancer serve is not ready\n{end}")

    def kill(self) -> None:
        """Kill it with no warning; it has ended on return."""
        assert self._process is not None, "it was started"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator does, if it still runs.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)  # heard in a script's background too
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + READY_TIMEOUT_S
        with httpx.Client(base_url=self.endpoints.rest, trust_env=False) as client:
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/readyz").is_success:
                        return True
                time.sleep(0.1)
        return False


@contextlib.contextmanager
def serving(
    endpoints: Endpoints | None, checkout: Path = ROOT, **settings: str
) -> Iterator[Endpoints]:
    """Yield the given endpoints, or those of a `Server` that ends with the block.

    Args:
        endpoints: endpoints of a running server; None: a server is started.
        checkout: see `Server`.
        settings: see `Server`.

    Raises:
        RuntimeError: see `Server.start`.
    """
    if endpoints is not None:
        yield endpoints
        return
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), checkout, **settings)
        try:
            server.start()
            yield server.endpoints
        finally:
            server.stop()
