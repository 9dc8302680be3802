"""Owns what the tests of the sandbox have workers do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

REFUSALS = (ValueError,)


def echo(*files: bytes, times: int) -> list[bytes | list[bytes]]:
    """Return each file, and the last one so many times in parts."""
    return [*files, [files[-1]] * times]


def refuse(data: bytes) -> list[bytes]:
    raise ValueError(f"not {data.decode()}")


def fail(data: bytes) -> list[bytes]:
    raise ZeroDivisionError("a fault of ours")


def crash(data: bytes) -> list[bytes]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return []


def eat(data: bytes, size: int) -> list[bytes]:
    return [bytes(size)[:1]]


def spin(data: bytes) -> list[bytes]:
    """Say in the named file which process this is, and work for ever."""
    Path(data.decode()).write_text(str(os.getpid()))
    while True:
        pass


def who(data: bytes) -> list[bytes]:
    return [str(os.getpid()).encode()]


def warm_up() -> None:
    """Have nothing to load."""


def environment() -> list[bytes]:
    return [Path("/proc/self/environ").read_bytes()]
