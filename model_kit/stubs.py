"""Owns finding the processes that run models' Python code, for those who watch a Triton."""

import contextlib

import psutil

from model_kit import heartbeat


def stubs_of(process: int, heartbeats: str) -> set[int]:
    """Return the processes that run, or ran, models' Python code in one run of Triton.

    What has beaten is one, whatever its end has left of it. By its name is found what does not
    beat, as a model that knows nothing of this.

    Args:
        process: tritonserver, or one that it descends from.
        heartbeats: path of the run's heartbeats, up to the process id.
    """
    found = heartbeat.process_ids(heartbeats)
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "python_backend_stub" in child.name():
                    found.add(child.pid)
    return found


def is_dead(process: int) -> bool:
    """Return whether a process has ended; a dead stub remains a zombie of tritonserver."""
    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
