"""Owns measuring what the step cache saves in time, and what it costs in the picture."""

import math
import statistics
import time
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from benchmarks.edits import SHOWN
from benchmarks.report import summary
from export.demo_edits.results import Editor, held_out
from export.demo_edits.score import psnr
from export.serving_code import Tuning

FLOWS = tuple(SHOWN)


def measure(
    bundle: Path, *, thresholds: tuple[float, ...], scenes: int, steps: int, size: int
) -> dict[str, Any]:
    """Edit held-out scenes in this process, at every threshold by turns.

    Args:
        bundle: the demo's bundle.
        thresholds: values of STEP_CACHE, above 0.
        scenes: how many scenes of each flow.
        steps: how many denoising steps.
        size: side of the square, in pixels.

    Returns:
        By threshold, `ratio`: each edit's seconds divided by those without the cache. `computed`:
        the fraction of passes through the network that went beyond the first block. `psnr`: flow
        -> mean and lowest PSNR against the picture without the cache, in dB.
    """
    plain = Editor(bundle, Tuning("auto"))
    cached = {
        threshold: Editor(bundle, Tuning("auto", step_cache=threshold)) for threshold in thresholds
    }
    passes = {threshold: _count(editor) for threshold, editor in cached.items()}
    ratios: dict[float, list[float]] = {threshold: [] for threshold in thresholds}
    found: dict[float, dict[str, list[float]]] = {threshold: {} for threshold in thresholds}
    for editor in (plain, *cached.values()):
        editor.edit(held_out(FLOWS[0], 0, size), 2)  # warms up
    for counter in passes.values():
        counter.clear()
    for flow in FLOWS:
        for index in range(scenes):
            sample = held_out(flow, index, size)
            started = time.perf_counter()
            wanted = plain.edit(sample, steps)
            whole = time.perf_counter() - started
            for threshold, editor in cached.items():
                started = time.perf_counter()
                picture = editor.edit(sample, steps)
                ratios[threshold].append((time.perf_counter() - started) / whole)
                found[threshold].setdefault(flow, []).append(psnr(picture, wanted))
    # A step has two passes: with the prompt and without.
    most = 2 * steps * scenes * len(FLOWS)
    return {
        "scenes": scenes,
        "steps": steps,
        "size": size,
        "thresholds": {
            str(threshold): {
                "ratio": summary(ratios[threshold]),
                "computed": round(len(passes[threshold]) / most, 3),
                "psnr": {
                    flow: {"mean": _rounded(statistics.fmean(each)), "min": _rounded(min(each))}
                    for flow, each in found[threshold].items()
                },
            }
            for threshold in thresholds
        },
    }


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw each flow's lowest PSNR by threshold, with the time saved."""
    thresholds = results["thresholds"]
    for flow in FLOWS:
        axes.plot(
            list(thresholds),
            [each["psnr"][flow]["min"] or math.nan for each in thresholds.values()],
            marker="o",
            label=str(flow),
        )
    axes.set_xticks(
        range(len(thresholds)),
        [
            f"{threshold}\n{each['ratio']['median']:.2f} of the time"
            for threshold, each in thresholds.items()
        ],
    )
    axes.set(
        title=f"STEP_CACHE, {results['steps']} steps at {results['size']}²",
        ylabel="lowest PSNR against the uncached picture, dB",
    )
    axes.legend()


def _count(editor: Editor) -> list[None]:
    """Return a list that grows by one with every pass through the network's last block."""
    passes: list[None] = []
    # The hook is on a part of the block, because the cache replaces the block's own forward.
    last = editor.transformer.transformer_blocks[-1].attn
    last.register_forward_hook(lambda *_: passes.append(None))
    return passes


def _rounded(decibels: float) -> float | None:
    """Round decibels; return None where nothing differs, because JSON has no infinity."""
    return round(decibels, 2) if math.isfinite(decibels) else None
