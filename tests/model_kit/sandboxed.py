"""Owns what the tests of the sandbox have workers do."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
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


def chatter(data: bytes) -> list[bytes]:
    """Say the bytes in every way in which parsers do."""
    text = data.decode()
    os.write(1, data)
    os.write(2, data)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.write(text)
        stream.flush()
    warnings.warn(text, stacklevel=1)
    return [data]


def unsettle(data: bytes) -> list[bytes]:
    """Have the sandbox itself fail behind the work."""
    json.dumps = None  # type: ignore[assignment]
    return [data]
