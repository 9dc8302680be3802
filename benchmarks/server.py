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


@contextlib.contextmanager
def serving(
    endpoints: Endpoints | None, checkout: Path = ROOT, **settings: str
) -> Iterator[Endpoints]:
    """Yield the given endpoints, or those of an `artmancer serve` that ends with the block.

    Args:
        endpoints: endpoints of a running server; None: a server is started.
        checkout: the folder of this project, maybe of another version, that it is started from.
        settings: settings of the started server, by name without the ARTMANCER_ prefix.

    Raises:
        RuntimeError: the server ended or was not ready in time; the text holds the end of its log.
    """
    if endpoints is not None:
        yield endpoints
        return
    rest, grpc = ports.free(2)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "ARTMANCER_PORT": str(rest),
        "ARTMANCER_TRITON_GRPC_PORT": str(grpc),
        **{f"ARTMANCER_{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-c", START, "serve"]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as state:
        # Its jobs are no other server's.
        environment.setdefault("ARTMANCER_STATE_FOLDER", state)
        process = subprocess.Popen(command, env=environment, cwd=checkout, stdout=log, stderr=log)
        try:
            started = Endpoints(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}")
            if not _becomes_ready(started, process):
                log.seek(0)
                raise RuntimeError(
                    f"artmancer serve is not ready\n{log.read()[-4000:].decode(errors='replace')}"
                )
            yield started
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _becomes_ready(endpoints: Endpoints, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    with httpx.Client(base_url=endpoints.rest) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return True
            time.sleep(0.1)
    return False
