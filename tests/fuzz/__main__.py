"""Owns `make fuzz`: damaged pictures and requests for some minutes, within bounds.

A failure is a case that raises anything but a refusal, is answered by 5xx, takes longer than
STILL_S, ends the process, or takes memory beyond MAX_BYTES. Its bytes are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.worker import FOLDER, TARGETS, keep, repeat, work

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

STILL_S = 30.0
"""A case that takes longer hangs."""
REPORT_S = 10.0
# A copy of this process would share its sockets and threads.
SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    """Run every target in a process of its own until the time is over; exit 1 after a failure."""
    options = argparse.ArgumentParser(description="Send damaged pictures and requests.")
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options.add_argument("--case", type=Path, help="run this kept case alone")
    chosen = options.parse_args()
    if chosen.case:
        repeat(chosen.case)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"seed {chosen.seed}, {chosen.seconds:.0f} s, failures are kept in {FOLDER}", flush=True)
    deadline = time.monotonic() + chosen.seconds
    watched = [Watched(name, chosen.seed, deadline) for name in TARGETS]
    reported = 0.0
    running = True
    while running:
        time.sleep(0.2)
        # All are looked at, because each is started again by that.
        running = sum(each.look() for each in watched) > 0
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            left = max(0, deadline - reported)
            print(f"{left:4.0f} s left: {', '.join(map(str, watched))}", flush=True)
    print("end:", ", ".join(map(str, watched)))
    sys.exit(any(each.failures for each in watched))


class Watched:
    """One target's process, started again where it hung or died."""

    def __init__(self, name: str, seed: int, deadline: float) -> None:
        self._name, self._seed, self._deadline = name, seed, deadline
        self._current = FOLDER / f"current-{name}"
        self._counts = SPAWN.Array("q", [0, 0])  # cases, and those that failed
        self._killed = 0
        self._seen, self._moved = 0, time.monotonic()
        self._current.write_bytes(b"")
        self._process = self._started()

    def __str__(self) -> str:
        return f"{self._counts[0]} {self._name}, {self.failures} failures"

    @property
    def failures(self) -> int:
        """Cases that failed."""
        return int(self._counts[1]) + self._killed

    def look(self) -> bool:
        """Start the process anew where it has to; return whether it still has work."""
        now = time.monotonic()
        if self._counts[0] != self._seen:
            self._seen, self._moved = self._counts[0], now
        if self._process.is_alive() and now - self._moved < STILL_S:
            return True
        if self._process.exitcode == 0:
            return False
        why = "hung" if self._process.is_alive() else f"ended with {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        if not (case := self._current.read_bytes()):
            sys.exit(f"{self._name} does not start: {why}")
        self._killed += 1
        keep(self._name, case, f"the process {why}")
        if now > self._deadline:
            return False
        self._moved = now
        self._process = self._started()
        return True

    def _started(self) -> SpawnProcess:
        left = self._deadline - time.monotonic()
        seed = f"{self._name}-{self._seed}-{self._killed}"
        arguments = (self._name, seed, left, self._counts, self._current)
        process = SPAWN.Process(target=work, args=arguments)
        process.start()
        return process


if __name__ == "__main__":
    main()
