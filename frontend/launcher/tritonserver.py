"""Owns one run of tritonserver as the launcher sees it: start, readiness, faults, stop."""

from __future__ import annotations

import collections
import contextlib
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import frontend
from frontend.launcher import installation, leftovers
from frontend.launcher.errors import LaunchError
from frontend.launcher.ports import LOOPBACK
from frontend.launcher.readiness import Readiness
from model_kit import stubs
from model_kit.heartbeat import Listener

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from frontend.launcher.repository import Model
    from frontend.settings import Settings

_TAIL_LINES, _TAIL_CHARS = 20, 300  # of the log, without Triton's wide tables
_POLL_S = 0.05
_GUARD_TIMEOUT_S = 10.0  # beyond tritonserver's own time to stop
_KEY_BYTES = 32
RESTRICTED = "shared-memory,model-repository,trace,logging"
"""What Triton does for whoever sends the key of `--grpc-restricted-protocol`, and for nobody else.

Nobody needs it, so nobody is told the key.
"""
INTERNAL_KEY = "ARTMANCER_INTERNAL_KEY"
"""Variable by which one launch's models know each other's requests; see model_kit/internal.py."""


@dataclass(frozen=True)
class _Stub:
    process: int
    model: str
    heartbeat: Listener


class TritonServer:
    """One run of tritonserver; it cannot be started again after its end."""

    def __init__(self, settings: Settings, models: Sequence[Model]) -> None:
        self._log = installation.log_file(settings.triton_grpc_port)
        self._models = models
        self._grpc_port = settings.triton_grpc_port
        self._stop_timeout_s = settings.triton_stop_timeout_s
        self._silence_timeout_s = settings.stub_silence_timeout_s
        self._stubs: list[_Stub] = []
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-m", leftovers.GUARD_MODULE),
                *(leftovers.LOG_OPTION, self._log, "--grace", str(self._stop_timeout_s)),
                *_command(settings),
            ],
            env=_environment(settings),
            cwd=Path(frontend.__file__).parents[1],
            stdin=subprocess.PIPE,  # its end of file tells the guard that the launcher is gone
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the launcher alone
        )

    def wait_ready(self, timeout_s: float, stopping: threading.Event) -> None:
        """Block until every model is ready, or `stopping` is set.

        Raises:
            LaunchError: the server ended, or was not ready in time; it holds the log's tail.
        """
        deadline = time.monotonic() + timeout_s
        name = leftovers.prefix(self._guard.pid)
        with Readiness(self._grpc_port, name, self._models) as ready:
            while not ready.reached():
                if (code := self._guard.poll()) is not None:
                    raise self._error(f"tritonserver ended with exit code {code} while starting")
                if time.monotonic() > deadline:
                    raise self._error(
                        f"tritonserver was not ready after {timeout_s:.0f} s: see {self._log}, or "
                        "set ARTMANCER_TRITON_START_TIMEOUT_S to more"
                    )
                if stopping.wait(_POLL_S):
                    return
        leftovers.make_private(self._guard.pid)
        heartbeats = leftovers.heartbeats(self._guard.pid)
        self._stubs = [
            _Stub(stub, _model(stub), Listener(heartbeats, stub, self._silence_timeout_s))
            for stub in stubs.stubs_of(self._guard.pid, heartbeats)
        ]

    def fault(self) -> LaunchError | None:
        """Return what is wrong with a server that was ready; None if nothing is."""
        code = self._guard.poll()
        if code is not None:
            return self._error(f"tritonserver ended with exit code {code}")
        for stub in self._stubs:
            if stubs.is_dead(stub.process):
                return self._error(f"the Python stub of {stub.model} died")
            if stub.heartbeat.is_silent():
                return self._error(
                    f"the Python stub of {stub.model} gave no sign of life for "
                    f"{self._silence_timeout_s:.0f} s"
                )
        return None

    def stop(self) -> None:
        """Stop the server gracefully, by force if that takes too long; leave nothing."""
        self._end(signal.SIGTERM, self._stop_timeout_s + _GUARD_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server at once; leave nothing."""
        self._end(signal.SIGQUIT, _GUARD_TIMEOUT_S)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        self._guard.send_signal(number)
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        leftovers.remove(self._guard.pid)  # finds nothing unless the guard itself was killed

    def _error(self, problem: str) -> LaunchError:
        tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        with (
            contextlib.suppress(OSError),
            self._log.open(encoding="utf-8", errors="replace") as lines,
        ):
            tail.extend(line[:_TAIL_CHARS].rstrip() for line in lines if line[0] not in "\n+|")
        return LaunchError(problem, log_tail="\n".join(tail))


def _model(stub: int) -> str:
    """Return the model that a stub runs: its first argument ends in NAME/1/model.py."""
    try:
        arguments = psutil.Process(stub).cmdline()
    except psutil.NoSuchProcess:
        arguments = []
    return Path("".join(arguments[1:2])).parent.parent.name or "a model that was loading"


def _environment(settings: Settings) -> dict[str, str]:
    variables = installation.environment()
    if settings.loading_file is not None:
        variables[leftovers.LOADING_FILE] = str(settings.loading_file.resolve())
    if not settings.triton_unrestricted:
        variables[INTERNAL_KEY] = secrets.token_hex(_KEY_BYTES)
    return variables


def _command(settings: Settings) -> list[str]:
    named = [f"--model-config-name={name}"] if (name := settings.model_config_name) else []
    return [
        str(installation.server()),
        f"--model-repository={installation.plain(settings.model_repository)}",
        *named,
        f"--backend-directory={installation.backends()}",
        f"--cache-directory={installation.caches()}",
        # Auto-completion starts each stub twice, and our configs are complete.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={settings.triton_stop_timeout_s:.0f}",
        *_door("http", settings.triton_http_port),
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={settings.triton_grpc_port}",
        *_door("metrics", settings.triton_metrics_port),
        *_restriction(settings),
        # Only these notice a client that froze; until then its responses pile up in memory.
        "--grpc-keepalive-time=1000",
        "--grpc-keepalive-timeout=5000",
        "--grpc-http2-max-pings-without-data=0",
    ]


def _door(name: str, port: int | None) -> list[str]:
    if port is None:
        return [f"--allow-{name}=false"]
    return [f"--{name}-address={LOOPBACK}", f"--{name}-port={port}"]


def _restriction(settings: Settings) -> list[str]:
    if settings.triton_unrestricted:
        return []
    return [f"--grpc-restricted-protocol={RESTRICTED}:artmancer={secrets.token_hex(_KEY_BYTES)}"]
