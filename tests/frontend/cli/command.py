"""Owns running `artmancer` as a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ARTMANCER = Path(sys.prefix) / "bin" / "artmancer"


def run(
    *words: object, url: str = "http://127.0.0.1:9", full_disk: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with `full_disk` it cannot write a byte into a file."""
    bounded = ("bash", "-c", 'ulimit -f 0; exec "$@"', "-") if full_disk else ()
    return subprocess.run(
        [*bounded, ARTMANCER, *map(str, words)],
        env=os.environ | {"ARTMANCER_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def started(
    *words: object, url: str = "http://127.0.0.1:9", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a command; it is killed at the end of the block."""
    process = subprocess.Popen(
        # A shell that runs the tests in the background has its children ignore it. Not by
        # preexec_fn, because gRPC's threads do not survive its fork.
        ["env", "--default-signal=INT", ARTMANCER, *map(str, words)],
        env=os.environ | {"ARTMANCER_URL": url, "PYTHONUNBUFFERED": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
