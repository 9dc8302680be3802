"""Owns what a benchmark leaves behind: dated JSON and a plot, with machine and versions."""

import datetime
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PACKAGES = [
    *("diffusers", "torch", "transformers", "peft", "numpy", "pillow"),
    *("nvidia-pytriton", "tritonclient", "fastapi", "uvicorn", "httpx"),
]

Draw = Callable[[Axes, dict[str, Any]], None]


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Return median, extremes and quartiles of samples, and the samples as they were measured.

    Every number is rounded to 4 decimals.

    Raises:
        statistics.StatisticsError: fewer than two samples.
    """
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "median": round(median, 4),
        "quartiles": [round(first, 4), round(third, 4)],
        "min": round(min(samples), 4),
        "max": round(max(samples), 4),
        "samples": [round(sample, 4) for sample in samples],
    }


def p95(samples: Sequence[float]) -> float:
    """Return what 95 % of the samples do not exceed, interpolated, rounded to 4 decimals.

    Raises:
        statistics.StatisticsError: fewer than two samples.
    """
    return round(statistics.quantiles(samples, n=20, method="inclusive")[-1], 4)


def machine() -> dict[str, Any]:
    """Return cores, CPU model, memory and present load of this machine."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_average": os.getloadavg(),
    }


def publish(
    console: Console,
    name: str,
    where: dict[str, Any],
    results: dict[str, Any],
    draw: Draw,
    *,
    keep: bool,
    module: str = "benchmarks",
) -> None:
    """Print what a benchmark measured, and `save` it.

    Args:
        console: where to print.
        name: of the benchmark.
        where: what `machine` returned before it.
        results: as `save` takes them.
        draw: as `save` takes it.
        keep: whether to save it where git tracks it; else in reports/, which git ignores.
        module: as `save` takes it.
    """
    for table in tables(results):
        console.print(table)
    folder = ROOT / "benchmarks" / "results" if keep else ROOT / "reports" / "benchmarks"
    console.print(str(save(name, where, results, draw, folder, module)), soft_wrap=True)


def tables(results: dict[str, Any]) -> list[Table]:
    """Show what a benchmark measured.

    Args:
        results: as `save` takes them.

    Returns:
        A table of every single figure, and one for each list of rows. Of a summary they show the
        middle and the quartiles.
    """
    figures = Table("what", "measured")
    rows = []
    for name, value in _figures("", results):
        if not isinstance(value, list):
            figures.add_row(name, _number(value))
        elif value and isinstance(value[0], dict):
            shown = Table(*value[0], title=name)
            for row in value:
                shown.add_row(*map(_number, row.values()))
            rows.append(shown)
        else:
            figures.add_row(name, ", ".join(map(_number, value)))
    return [figures, *rows]


def _figures(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    if "samples" in value:
        middle = next(name for name in ("median", "mean") if name in value)
        spread = f" ({' to '.join(map(_number, value.get('quartiles', ())))})"
        yield f"{prefix}, {middle}", _number(value[middle]) + spread.replace(" ()", "")
        return
    for name, each in value.items():
        yield from _figures(f"{prefix}: {name}" if prefix else str(name), each)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(
    name: str,
    where: dict[str, Any],
    results: dict[str, Any],
    draw: Draw,
    folder: Path,
    module: str = "benchmarks",
) -> Path:
    """Write `<date>-<name>.json` and, beside it, its plot as PNG.

    Args:
        name: the benchmark.
        where: the machine as it was before the benchmark put load on it.
        results: what the benchmark measured, JSON-serialisable.
        draw: draws the results into axes.
        folder: where both files go.
        module: the one that was run, for the command that the file names.

    Returns:
        The path of the JSON file.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    report = {
        "benchmark": name,
        "date": now.isoformat(),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "machine": where,
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES},
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now.date()}-{name}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    figure = Figure(figsize=(7, 4), layout="constrained")
    draw(figure.subplots(), results)
    figure.supxlabel(f"{now.date()}, {where['cores']} cores, {where['cpu']}", size="xx-small")
    figure.savefig(path.with_suffix(".png"), dpi=120)
    return path


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
