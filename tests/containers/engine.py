"""Owns the calls of the docker command that the tests need."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]


def docker(
    *arguments: str,
    stdin: bytes = b"",
    timeout_s: float = 120,
    environment: dict[str, str] | None = None,
) -> bytes:
    """Run `docker` with `arguments` and return its stdout.

    Args:
        arguments: those of the command line.
        stdin: what the command reads.
        timeout_s: seconds until the command counts as hung.
        environment: of the command; None: this process's.

    Raises:
        AssertionError: the command failed; the text ends with its output.
    """
    done = subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        env=environment,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{said[-6000:]}"
    return done.stdout


def why_no_engine() -> str | None:
    """Return why containers cannot be run here; None if they can."""
    try:
        docker("version", timeout_s=30)
        docker("compose", "version", timeout_s=30)
    except FileNotFoundError:
        return "there is no `docker` command"
    except subprocess.TimeoutExpired:
        return "the engine does not answer"
    except AssertionError as error:
        return str(error).strip().splitlines()[-1]
    return None


def can_lock_memory(image: str) -> bool:
    """Return whether the engine may set the memlock limit that docker-compose.yml asks for."""
    try:
        docker("run", "--rm", "--ulimit=memlock=-1", "--entrypoint=true", image)
    except AssertionError as error:
        if "rlimit" not in str(error):
            raise
        return False
    return True


def image_bytes(image: str) -> int:
    """Return the size of an image, as `docker images` shows it."""
    return int(docker("image", "inspect", "--format={{.Size}}", image))


def layers(image: str) -> list[str]:
    """Return the digests of an image's layers, the base's first."""
    found = docker("image", "inspect", "--format={{json .RootFS.Layers}}", image)
    return [str(digest) for digest in json.loads(found)]


def engine_time() -> str:
    """Return the engine's own clock, from which `events` may start."""
    return docker("info", "--format={{.SystemTime}}").decode().strip()


def await_events(container: str, since: str, *wanted: str, timeout_s: float = 400) -> list[Json]:
    """Wait until a container has had these events in this order; return them.

    Args:
        container: its id.
        since: an `engine_time`; earlier events do not count.
        wanted: actions such as `die`, `start`, `health_status: healthy`.
        timeout_s: seconds until the events count as missing.

    Raises:
        AssertionError: they did not all come; the text says which came.
    """
    command = ["docker", "events", f"--since={since}", f"--filter=container={container}"]
    missing, found, seen = list(wanted), [], []
    with following([*command, "--format=json"], timeout_s) as lines:
        for line in lines:
            event = json.loads(line)
            seen.append(event["Action"])
            if event["Action"] == missing[0]:
                found.append(event)
                missing.pop(0)
            if not missing:
                return found
    raise AssertionError(f"no {missing[0]} within {timeout_s} s, but {seen}")


@contextlib.contextmanager
def following(
    command: list[str], timeout_s: float, stdin: bytes = b""
) -> Iterator[Iterator[bytes]]:
    """Run a command and yield its lines as they come; they end after `timeout_s` at the latest."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        try:
            process.stdin.write(stdin)
            process.stdin.close()
            yield iter(process.stdout)
        finally:
            watchdog.cancel()
            process.kill()
