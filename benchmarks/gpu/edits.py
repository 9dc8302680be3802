"""Owns whole edits by the demo bundle on the GPU, beside the same edits on the CPU."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu import machine, removal
from export.demo_edits import bundle as demo_bundle
from image_edit.engine.bundle import load_bundle
from image_edit.engine.engine import EditEngine
from image_edit.settings import Tuning

BUNDLE = Path(__file__).parents[2] / "bundles" / "demo"
STEPS = 4
# One of them is compiled, because compiling takes long; "compiled-steps" compiles at full size.
WAYS = {
    "bfloat16": Tuning("bfloat16"),
    "int8": Tuning("bfloat16", quantization="int8"),
    "fp8, compiled": Tuning("bfloat16", quantization="fp8", compile_blocks=True),
}


def measure() -> dict[str, Any]:
    """Load in one thread and edit in another, as the server does, with every kind of weights."""
    if not demo_bundle.is_current(BUNDLE):
        demo_bundle.place(BUNDLE)
    scale = machine.current.scale
    sides: tuple[int, ...] = scale.of((128, 256, 512), (64,))
    expected = _edits(Tuning("float32"), "cpu", sides)
    # Compiling, and 8-bit floats in older versions of torch, need the GPU.
    names = scale.of(tuple(WAYS), ("bfloat16", "int8"))
    found: dict[str, Any] = {}
    for name in names:
        pictures = _edits(WAYS[name], str(machine.current.device), sides)
        found[name] = {
            str(side): {"ms": pictures[side][1], "psnr": _psnr(pictures[side][0], wanted)}
            for side, (wanted, _) in expected.items()
        }
    return {
        "steps": STEPS,
        "ways": found,
        "summary": [
            f"{name} {min(each['psnr'] for each in sizes.values())} dB to the CPU"
            for name, sizes in found.items()
        ],
    }


def _edits(
    tuning: Tuning, device: str, sides: tuple[int, ...]
) -> dict[int, tuple[npt.NDArray[np.uint8], float]]:
    """Return side -> the picture, and milliseconds of the second of two edits."""
    with ThreadPoolExecutor(1) as loader:
        bundle = loader.submit(load_bundle, BUNDLE, tuning, device).result()
    found = {}
    with ThreadPoolExecutor(1) as thread:
        engine = EditEngine(bundle, None, 3.0)
        for side in sides:
            thread.submit(_edit, engine, side).result()
            started = time.perf_counter()
            picture = thread.submit(_edit, engine, side).result()
            found[side] = (picture, round(1e3 * (time.perf_counter() - started), 1))
    return found


def _edit(engine: EditEngine, side: int) -> npt.NDArray[np.uint8]:
    picture = removal.gradient(side)
    state = removal.prepared(engine, np.stack([picture, picture[::-1]]), STEPS)
    for _ in range(STEPS):
        engine.step(state)
    return engine.decode(state)


def _psnr(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    # 100 for equal pictures, because JSON has no infinity.
    return round(10 * math.log10(255**2 / error), 1) if error else 100.0
