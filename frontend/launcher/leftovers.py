"""Owns what a killed tritonserver leaves behind: orphaned processes and shared memory.

All that belongs to one run of tritonserver carries one prefix: shared memory regions and the
stubs' heartbeats in their names, tritonserver and its stubs on their command lines. The prefix
holds the process id of the run's guard, and so shows whether the run still has an owner.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path

import psutil

GUARD_MODULE = "frontend.launcher.guard"
LOG_OPTION = "--log"
LOADING_FILE = "ARTMANCER_LOADING_FILE"
"""Variable that names the file in which a model writes what it is loading."""

_SHARED_MEMORY = Path("/dev/shm")
# Newer Tritons refuse to register a region of this name for a client: it would be their own.
_RESERVED = "triton_python_backend_shm_region_"
_PREFIX = re.compile(rf"{_RESERVED}artmancer-(\d+)-")
_KILL_TIMEOUT_S = 5.0


def prefix(guard_pid: int) -> str:
    """Return the prefix of the run that the guard with this process id owns."""
    return f"{_RESERVED}artmancer-{guard_pid}-"


def heartbeats(guard_pid: int) -> str:
    """Return the path of the heartbeats of one run's stubs, up to the stub's process id."""
    return str(_SHARED_MEMORY / f"{prefix(guard_pid)}heartbeat-")


def make_private(guard_pid: int) -> None:
    """Let only this user read the shared memory of one run.

    Triton sets the mode of a region itself, whatever the umask, and makes all of them while it
    loads: before anybody can send a picture.
    """
    for path, owner in _regions():
        if owner == guard_pid:
            path.chmod(0o600)


def remove(guard_pid: int) -> None:
    """Kill every process and unlink every shared memory region of one run."""
    orphans = [process for process, owner in _processes() if owner == guard_pid]
    for process in orphans:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(orphans, timeout=_KILL_TIMEOUT_S)
    for path, owner in _regions():
        if owner == guard_pid:
            with contextlib.suppress(OSError):  # another user's, or gone already
                path.unlink()


def remove_stale() -> None:
    """Remove the leftovers of every run whose guard is no longer alive."""
    owners = {owner for _, owner in [*_processes(), *_regions()]}
    for guard_pid in owners:
        if not _is_guard(guard_pid):
            remove(guard_pid)


def logs_in_use() -> set[Path]:
    """Return the logs that the guards of all runs write to."""
    lines = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    return {
        Path(log)
        for line in lines
        if GUARD_MODULE in line
        for option, log in itertools.pairwise(line)
        if option == LOG_OPTION
    }


def _is_guard(pid: int) -> bool:
    try:
        return GUARD_MODULE in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _processes() -> list[tuple[psutil.Process, int]]:
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        # Only Triton's own processes, because an editor or a grep may carry the prefix too.
        if (process.info["name"] or "").startswith("triton") and _counts_as_here(process.pid):
            match = _PREFIX.search(" ".join(process.info["cmdline"] or []))
            if match:
                found.append((process, int(match[1])))
    return found


def _counts_as_here(pid: int) -> bool:
    """Return whether a process is of this one's pid namespace.

    A container's is of another, where its guard has another number than here.
    """
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:  # it has ended, or is another user's
        return False


def _regions() -> list[tuple[Path, int]]:
    matches = ((path, _PREFIX.match(path.name)) for path in _SHARED_MEMORY.glob(f"{_RESERVED}*"))
    return [(path, int(match[1])) for path, match in matches if match]
