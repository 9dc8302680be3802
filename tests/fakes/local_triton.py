"""Owns settings and probes for tests that launch a real tritonserver with a tiny model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tritonclient.grpc as triton

from frontend.launcher import leftovers, ports
from frontend.settings import Settings

if TYPE_CHECKING:
    import pytest

ECHO_REPOSITORY = Path(__file__).parent / "model_repository"
SHARED_MEMORY = Path("/dev/shm")


def echo_settings(**changes: Any) -> Settings:
    """Return settings that launch the echo model on free ports."""
    port, http_port, grpc_port, metrics_port = ports.free(4)
    values: dict[str, Any] = {
        "port": port,
        "triton_http_port": http_port,
        "triton_grpc_port": grpc_port,
        "triton_metrics_port": metrics_port,
        "model_repository": ECHO_REPOSITORY,
        "state_folder": Path(os.environ["XDG_STATE_HOME"]) / str(port),
    }
    return Settings(**(values | changes))


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process that is to have these settings."""
    changed = settings.model_dump(exclude_defaults=True)
    variables = {f"ARTMANCER_{name.upper()}": str(value) for name, value in changed.items()}
    return dict(os.environ) | variables


def use_cache_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Keep what a launcher caches in `folder`; return where that will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "artmancer"


def echo(settings: Settings, text: str) -> str:
    """Send `text` through the echo model."""
    tensor = triton.InferInput("TEXT", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], np.object_))
    with triton.InferenceServerClient(settings.triton_grpc_urls[0]) as client:
        answer: bytes = client.infer("echo", [tensor]).as_numpy("TEXT")[0]
    return answer.decode()


def processes(settings: Settings) -> dict[str, psutil.Process]:
    """Return the live processes of the Triton on these ports: guard, tritonserver, stub."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"--grpc-port={settings.triton_grpc_port}" in process.cmdline():
                if process.name() == "tritonserver":
                    found["tritonserver"] = process
                    for child in process.children():
                        if "stub" in child.name():
                            found["stub"] = child
                else:
                    found["guard"] = process
    return found


def regions(guard: psutil.Process) -> list[Path]:
    """Return the shared memory that belongs to one guard's run."""
    return list(SHARED_MEMORY.glob(f"{leftovers.prefix(guard.pid)}*"))
