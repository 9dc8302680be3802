"""Owns the process that carries out one target's cases, and keeps those that fail."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.targets import Pictures, Requests

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray

FOLDER = Path(__file__).parents[2] / "reports" / "fuzz"
MAX_BYTES = 400 * 2**20
"""What the process may take beyond what it had after its first cases."""
WARM_CASES = 200
TARGETS: dict[str, type[Pictures] | type[Requests]] = {"pictures": Pictures, "requests": Requests}


def work(
    name: str, seed: str, seconds: float, counts: SynchronizedArray[int], current: Path
) -> None:
    """Carry out cases of one target until the time is over."""
    deadline = time.monotonic() + seconds
    # Decoders in C write a line to it about most damaged files.
    with (FOLDER / f"{name}.log").open("wb") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    target, rng = TARGETS[name](), random.Random(seed)
    done, most = 0, sys.maxsize
    with target.running() as run:
        while time.monotonic() < deadline:
            case = target.case(rng)
            current.write_bytes(case)
            try:
                run(case)
                used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                if done == WARM_CASES:
                    most = used + MAX_BYTES
                if used > most:
                    most = used  # reported once
                    raise MemoryError(f"{used / 2**20:.0f} MiB are in use")
            except Exception:
                counts[1] += 1
                keep(name, case, traceback.format_exc())
            done += 1
            counts[0] += 1


def keep(name: str, case: bytes, why: str) -> None:
    """Write a failed case beside its reason, and print where."""
    path = FOLDER / f"{name}-{hashlib.sha256(case).hexdigest()[:12]}"
    path.write_bytes(case)
    path.with_suffix(".txt").write_text(why)
    print(f"FAILED {path}: {why.strip().splitlines()[-1]}", flush=True)


def repeat(path: Path) -> None:
    """Carry out one kept case in this process."""
    with TARGETS[path.name.partition("-")[0]]().running() as run:
        run(path.read_bytes())
