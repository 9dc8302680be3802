"""Owns starting and stopping a whole ArtMancer (frontend and real tritonserver) for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from frontend.launcher import ports

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 90.0
# By the defaults, an answer that a busy machine delays for seconds is a missing one.
# Tests kill more Tritons in two minutes than a server restarts, and give them as long to load as
# `wait_ready` waits.
PATIENCE = {
    "PING_TIMEOUT_S": "10",
    "CANCEL_TIMEOUT_S": "20",
    "MASK_TIMEOUT_S": "120",
    "TRITON_RESTART_LIMIT": "1000",
    "TRITON_START_TIMEOUT_S": "280",
}


@dataclass(frozen=True)
class Server:
    """A running `artmancer serve`: its addresses, its process and its log."""

    url: str
    triton_url: str
    triton_http_url: str
    process: subprocess.Popen[bytes]
    log: Path

    def tree(self) -> list[psutil.Process]:
        """Return every live descendant of the launcher, tritonserver and its stubs included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def resident(self) -> int:
        """Return the bytes of resident memory of the launcher and all that it has started."""
        found = psutil.Process(self.process.pid).memory_info().rss
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # a picture's worker, which has ended
                found += process.memory_info().rss
        return int(found)

    def tritonserver(self) -> psutil.Process:
        """Return the tritonserver process.

        Raises:
            LookupError: it is not running.
        """
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                if process.name() == "tritonserver":
                    return process
        raise LookupError("no tritonserver is running")

    def stub(self, model: str) -> psutil.Process:
        """Return the Python stub that serves `model`.

        Raises:
            LookupError: no live stub serves it.
        """
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "stub" in process.name() and any(f"/{model}/" in word for word in line):
                    return process
        raise LookupError(f"no stub serves {model}")

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Block until /readyz answers 200.

        Raises:
            TimeoutError: it did not within `timeout_s` seconds; the text ends with the log.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"not ready, rc={self.process.poll()}\n{self.log.read_text()[-6000:]}")


def running(log: Path, **settings: str) -> contextlib.AbstractContextManager[Server]:
    """Run `artmancer serve` on free ports with `settings` (without the ARTMANCER_ prefix).

    Tests reach every part of its Triton. What is shipped keeps some of them closed, and tests/abuse
    looks at that.
    """
    (http_port,) = ports.free(1)
    opened = {"TRITON_HTTP_PORT": str(http_port), "TRITON_UNRESTRICTED": "true"}
    return launched(log, PATIENCE | opened | settings)


def copied_repository(folder: Path) -> Path:
    """Return a copy of the model repository in `folder`, to be changed, beside the same bundles."""
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository)
    (folder / "bundles").mkdir()
    for bundle in (ROOT / "bundles").iterdir():
        (folder / "bundles" / bundle.name).symlink_to(bundle)
    return repository


@contextlib.contextmanager
def launched(
    log: Path, settings: dict[str, str], open_files: int | None = None
) -> Iterator[Server]:
    """Run `artmancer serve` on free ports.

    Args:
        log: file for its output.
        settings: by name, without the ARTMANCER_ prefix; the others have their defaults.
        open_files: most that each of its processes may have open; None: as many as this one may.
    """
    port, grpc_port = ports.free(2)
    environment = {name: value for name, value in os.environ.items() if "ARTMANCER_" not in name}
    environment |= {
        "ARTMANCER_PORT": str(port),
        "ARTMANCER_TRITON_GRPC_PORT": str(grpc_port),
        "ARTMANCER_STATE_FOLDER": str(log.with_suffix(".state")),
    }
    environment |= {f"ARTMANCER_{name}": value for name, value in settings.items()}
    command = [str(Path(sys.prefix) / "bin" / "artmancer"), "serve"]
    if open_files is not None:
        command = ["prlimit", f"--nofile={open_files}:{open_files}", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    server = Server(
        url=f"http://127.0.0.1:{port}",
        triton_url=f"127.0.0.1:{grpc_port}",
        triton_http_url=f"http://127.0.0.1:{settings.get('TRITON_HTTP_PORT')}",
        process=process,
        log=log,
    )
    try:
        server.wait_ready()
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
