"""Owns the order of measurements: a budget, and for each a try, a deadline and a file."""

import contextlib
import datetime
import json
import platform
import shlex
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine

# Takes the names of the measurements that are left, and seconds for them.
GoOn = Callable[[Sequence[str], float], None]
PACKAGES = (
    *("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "numpy"),
    "psutil",
)


@dataclass(frozen=True)
class Measurement:
    """One thing to find out."""

    name: str
    seconds: float
    """How long it should take."""
    decides: str
    """The question that the result answers."""
    answers: tuple[int, ...]
    """Lines of the list of what to run on a GPU, by number."""
    run: Callable[[], dict[str, Any]]
    """Returns what it found; JSON can hold it."""


class DeadlineError(Exception):
    """A measurement took too long."""


def run_all(
    measurements: Sequence[Measurement],
    *,
    budget: float,
    out: Path,
    arguments: Sequence[str],
    go_on: GoOn,
) -> bool:
    """Run measurements in their order, and write each one's file as soon as it ends.

    A measurement that fails, or exceeds its deadline, loses only its own result. The deadline is
    twice the expected time, or what is left of the budget. If less than half of the expected time
    is left, the measurement is left out.

    Args:
        measurements: in the order of their worth.
        budget: seconds for all of them.
        out: the folder for the files.
        arguments: of the command, for the files.
        go_on: runs the rest in a new process when the device no longer answers this one.

    Returns:
        Whether all of them have a result.
    """
    out.mkdir(parents=True, exist_ok=True)
    if missing := [package for package in PACKAGES if package not in _versions()]:
        print(f"not installed: {', '.join(missing)}", flush=True)
    ends = time.monotonic() + budget
    good = True
    for index, measurement in enumerate(measurements):
        left = ends - time.monotonic()
        started = time.monotonic()
        found: dict[str, Any]
        if left < measurement.seconds / 2:
            found = {"error": f"left out: {max(0, left):.0f} s of the budget were left"}
        else:
            print(f"{measurement.name} ...", flush=True)
            found = _attempt(measurement, min(2 * measurement.seconds, left))
        good = good and "error" not in found
        report = {
            "measurement": measurement.name,
            "decides": measurement.decides,
            "answers": list(measurement.answers),
            "date": _now().isoformat(),
            "command": shlex.join(["python", "-m", "benchmarks", "gpu", *arguments]),
            "versions": {"python": platform.python_version()} | _versions(),
            "seconds": round(time.monotonic() - started, 1),
            **found,
        }
        path = out / f"{_now().date()}-{measurement.name}.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        lines = ", ".join(map(str, measurement.answers)) or "none"
        said = found.get("error", "measured").strip().splitlines()[-1]
        print(
            f"{measurement.name}: {said} ({report['seconds']} s; lines {lines}; {path})", flush=True
        )
        rest = [each.name for each in measurements[index + 1 :]]
        if "error" in found and rest and machine.lost():
            print("the device is lost; a new process goes on", flush=True)
            go_on(rest, ends - time.monotonic())
            return False
    return good


def _attempt(measurement: Measurement, deadline: float) -> dict[str, Any]:
    try:
        with _deadline(deadline):
            results = measurement.run()
        return {"device": machine.name(), "results": results}
    except Exception:
        return {"device": machine.name(), "error": traceback.format_exc()}
    finally:
        machine.forget()


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise DeadlineError in the main thread, at the first line of Python after the deadline."""

    def expire(_signal: int, _frame: Any) -> None:
        raise DeadlineError(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
