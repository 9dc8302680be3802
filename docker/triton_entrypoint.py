"""Owns tritonserver in a container: runs it, and ends it when a stub dies or nothing is left to do.

Triton never restarts a dead stub. It still reports ready, and the clients of that model wait
for ever. A stub that gives no sign of life is as good as dead. So the container ends, and their
streams end with it. Its restart policy starts it again. While it stops, the container ends once
no stub has had work for a while, even where Triton goes on waiting.
The exit code is tritonserver's, or 128 + n if signal n ended it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from model_kit import heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD_SETUP, STUB_DIED = 2, 1
WATCH_INTERVAL_S = 0.5
ANSWER_TIMEOUT_S = 5.0
# A proxy of the environment would take 127.0.0.1 for itself.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# A tritonserver without stubs ends within a few seconds of SIGTERM.
LINGER_S = 30.0
# What Triton does for whoever sends the key, and for nobody else. Nobody needs it, so nobody is
# told the key.
RESTRICTED = "shared-memory,model-repository,trace,logging"
# By which the models know each other's requests; see model_kit/internal.py.
INTERNAL_KEY = "ARTMANCER_INTERNAL_KEY"
KEY_BYTES = 32
# How long the jobs in flight may take after SIGTERM, in whole seconds.
EXIT_TIMEOUT = "TRITON_EXIT_TIMEOUT_S"
# How long a stub may give no sign of life; the launcher's setting of this name.
SILENCE_TIMEOUT = "ARTMANCER_STUB_SILENCE_TIMEOUT_S"
# Memory that a container may write to, as Triton needs it too.
SHARED_MEMORY = Path("/dev/shm")
# Says what the image has and what the machine lacks, and becomes the command that it is given.
NVIDIA = Path("/opt/nvidia/nvidia_entrypoint.sh")
# Newer Tritons refuse to register a region of this name for a client: it would be their own.
RUNS = "triton_python_backend_shm_region_artmancer-container-"
# Cards that another profile serves, by the names that operators look for.
ALIASES = {"a100-80gb": "", "h200": "h100"}


def main(arguments: list[str] | None = None) -> int:
    """Run tritonserver to its end.

    Args:
        arguments: those of the command line; what is not for this program is for tritonserver.

    Returns:
        The exit code.
    """
    stopping = threading.Event()
    # First, because a container's first process ignores every signal that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    options, passed_on = parse(arguments)
    if wrong := profile_problem(options.model_repository, options.profile):
        print(wrong, file=sys.stderr)
        return BAD_SETUP
    with contextlib.ExitStack() as stack:
        try:
            prefix = stack.enter_context(shared_memory())
        except OSError as error:
            print(f"{SHARED_MEMORY} cannot be used: {error.strerror}", file=sys.stderr)
            return BAD_SETUP
        return run(options, passed_on, prefix, stopping)


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """Give this run the path that all its shared memory begins with, and remove that at the end.

    In Kubernetes a pod's shared memory outlives its containers, so what earlier runs have left is
    removed first. Each run holds a lock, which the kernel frees whatever ends the run.
    """
    for lock in SHARED_MEMORY.glob(f"{RUNS}*-lock"):
        with contextlib.suppress(OSError), lock.open() as file:  # locked, or another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            heartbeat.remove_files(str(lock).removesuffix("lock"))
    prefix = f"{SHARED_MEMORY}/{RUNS}{secrets.token_hex(KEY_BYTES)}-"
    with Path(f"{prefix}new").open("x") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Locked before others can find it, and take the run for one that has ended.
        Path(file.name).rename(f"{prefix}lock")
        try:
            yield Path(prefix)
        finally:
            heartbeat.remove_files(prefix)


def run(
    options: argparse.Namespace, passed_on: list[str], prefix: Path, stopping: threading.Event
) -> int:
    """Run tritonserver to its end.

    Args:
        options: this program's.
        passed_on: arguments for tritonserver.
        prefix: path that its shared memory begins with.
        stopping: set once it is to stop.

    Returns:
        The exit code.
    """
    heartbeats = f"{prefix}heartbeat-"
    server = subprocess.Popen(
        [
            *([str(NVIDIA)] if NVIDIA.exists() else []),
            *command(options),
            f"--backend-config=python,shm-region-prefix-name={prefix.name}",
            *passed_on,
        ],
        env={
            **os.environ,
            INTERNAL_KEY: secrets.token_hex(KEY_BYTES),
            heartbeat.PREFIX_VARIABLE: heartbeats,
        },
        start_new_session=True,
    )

    def stop(_number: int, _frame: object) -> None:
        stopping.set()
        server.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if stopping.is_set():  # since before there was a server to tell
        server.terminate()
    try:
        return watch(
            server,
            f"http://127.0.0.1:{options.http_port}",
            stopping,
            heartbeats,
            options.stub_silence_timeout_secs,
        )
    finally:
        kill_group(server)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return this program's options and what is left for tritonserver."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model-repository", type=Path, default=Path("/models"))
    parser.add_argument(
        "--profile",
        type=lambda name: ALIASES.get(name, name),
        default=os.environ.get("TRITON_PROFILE", ""),
        help="name of the models' configs/NAME.pbtxt; empty or a100-80gb: their config.pbtxt",
    )
    parser.add_argument(
        "--exit-timeout-secs",
        type=exit_timeout,
        default=os.environ.get(EXIT_TIMEOUT, "30"),
        help="how long the jobs in flight may take after SIGTERM",
    )
    parser.add_argument(
        "--stub-silence-timeout-secs",
        type=silence_timeout,
        default=os.environ.get(SILENCE_TIMEOUT, str(heartbeat.TIMEOUT_S)),
        help="how long a model's process may give no sign of life",
    )
    parser.add_argument("--http-port", type=int, default=8000)
    return parser.parse_known_args(arguments)


def exit_timeout(text: str) -> int:
    """Return the whole seconds that a text names.

    Raises:
        argparse.ArgumentTypeError: it names none, as tritonserver would find only at its start.
    """
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{EXIT_TIMEOUT}: must be whole seconds, not {text!r}")
    return int(text)


def silence_timeout(text: str) -> float:
    """Return the seconds that a text names.

    Raises:
        argparse.ArgumentTypeError: it names none, or so few that a busy machine would end healthy
            stubs.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not heartbeat.MIN_TIMEOUT_S <= seconds < math.inf:
        least = f"{heartbeat.MIN_TIMEOUT_S:.0f}"
        raise argparse.ArgumentTypeError(
            f"{SILENCE_TIMEOUT}: must be {least} seconds or more, not {text!r}"
        )
    return seconds


def profile_problem(repository: Path, profile: str) -> str | None:
    """Return what is wrong with a profile's name; Triton itself would take another silently."""
    known = {path.stem for path in repository.glob("*/configs/*.pbtxt")}
    if not profile or profile in known:
        return None
    aliases = {name for name, of in ALIASES.items() if not of or of in known}
    return (
        f"no model in {repository} has configs/{profile}.pbtxt: set TRITON_PROFILE to one of "
        f"{', '.join(sorted(known | aliases))}, or to nothing for config.pbtxt"
    )


def command(options: argparse.Namespace) -> list[str]:
    """Return the command that starts tritonserver."""
    named = [f"--model-config-name={options.profile}"] if options.profile else []
    return [
        "tritonserver",
        f"--model-repository={options.model_repository}",
        *named,
        # Auto-completion starts each stub twice, and our configs are complete.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={options.exit_timeout_secs}",
        # For the health check alone; clients speak gRPC.
        "--http-address=127.0.0.1",
        f"--http-port={options.http_port}",
        # By default Triton uses the HTTP address for metrics too.
        "--metrics-address=0.0.0.0",
        f"--grpc-restricted-protocol={RESTRICTED}:artmancer={secrets.token_hex(KEY_BYTES)}",
        # Only these notice a client that froze; until then its responses pile up.
        "--grpc-keepalive-time=1000",
        "--grpc-keepalive-timeout=5000",
        "--grpc-http2-max-pings-without-data=0",
    ]


def watch(
    server: subprocess.Popen[bytes],
    url: str,
    stopping: threading.Event,
    heartbeats: str,
    silence_timeout_s: float,
) -> int:
    """Wait for the end of the server, or for a stub's.

    Args:
        server: tritonserver.
        url: of its HTTP endpoint.
        stopping: set after SIGTERM was sent to the server, which ends its stubs too.
        heartbeats: path of its stubs' heartbeats, up to the process id.
        silence_timeout_s: seconds without one that count as a stub's end.

    Returns:
        The exit code of this program.
    """
    from model_kit import stubs  # after the signals' handlers, for psutil takes its time

    watched: dict[int, heartbeat.Listener] | None = None
    over_since: float | None = None
    while True:
        try:
            code = server.wait(WATCH_INTERVAL_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            # Triton exits with 1 after its timeout, also where it waited for nobody.
            if code > 0 and stopping.is_set() and watched and all_idle(watched):
                return 0
            return code if code >= 0 else 128 - code
        if stopping.is_set():
            # Triton waits its whole exit timeout for the jobs of a stub that died. Often it does
            # so for a client that left in the moment of its answer, too.
            if not watched:
                continue
            problems = [problem(*stub) for stub in watched.items()]
            idle = [heard.is_idle() for heard in watched.values()]
            if not all(ended or rests for ended, rests in zip(problems, idle, strict=True)):
                over_since = None
                continue
            now = time.monotonic()
            over_since = over_since or now
            if now - over_since > LINGER_S:
                print("No stub has work: ending tritonserver", file=sys.stderr, flush=True)
                return 0 if all_idle(watched) else STUB_DIED
            continue
        if watched is None:
            # Until then nobody is served. A stub that died meanwhile is found dead.
            if is_ready(url):
                watched = {
                    stub: heartbeat.Listener(heartbeats, stub, silence_timeout_s)
                    for stub in stubs.stubs_of(server.pid, heartbeats)
                }
                print(f"Watching {len(watched)} stubs", file=sys.stderr, flush=True)
            continue
        for stub, heard in watched.items():
            if found := problem(stub, heard):
                line = f"Stub {stub} {found}: ending tritonserver"
                print(line, file=sys.stderr, flush=True)
                return STUB_DIED


def all_idle(watched: dict[int, heartbeat.Listener]) -> bool:
    """Return whether no stub has lost work: one that Triton has unloaded has ended without."""
    return all(heard.is_idle() for heard in watched.values())


def is_ready(url: str) -> bool:
    """Return whether all models are loaded; Triton opens no port before."""
    try:
        with DIRECT.open(f"{url}/v2/health/ready", timeout=ANSWER_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def problem(stub: int, heard: heartbeat.Listener) -> str | None:
    """Return how a stub has ended, in words; None if it lives."""
    from model_kit import stubs

    if stubs.is_dead(stub):
        return "died"
    return "gave no sign of life" if heard.is_silent() else None


def kill_group(server: subprocess.Popen[bytes]) -> None:
    """End what is left of tritonserver and its stubs, which outlive it when they are busy."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    server.wait()


if __name__ == "__main__":
    sys.exit(main())
