"""Owns measuring how good and fast edits are: held-out scenes by REST, beside simple methods."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from benchmarks import client as rest
from benchmarks.pictures import base64_png, from_base64
from benchmarks.report import summary
from export.demo_edits.results import held_out, scores
from export.demo_edits.samples import Flow, Sample
from export.scenes.edits import Pixels, as_pixels
from export.serving_code import telea

SERVER, UNEDITED = "server", "unedited"
# Flow -> the score to show, its label with the unit, and the value to reach.
SHOWN = {
    Flow.REMOVAL: ("inside", "PSNR in the mask, dB", 24.0),
    Flow.WHITE_BALANCE: ("angle", "angle to the true colours, degrees", None),
    Flow.REFERENCE: ("colour", "colour in the mask, of 255", 20.0),
    Flow.TWO_SOURCE: ("colour", "colour in the mask, of 255", 20.0),
}


def filled(sample: Sample) -> Pixels:
    """Fill the mask from its rim by OpenCV, as the server does for the model's conditions."""
    hole = np.uint8(255) * (sample.request.conditional_images[0][..., 0] > 0)
    return telea(sample.conditions.source, hole)


def grey_world(sample: Sample) -> Pixels:
    """Scale each channel so that the picture's mean is grey (Buchsbaum 1980)."""
    source = sample.conditions.source.astype(np.float32)
    means = source.mean(axis=(0, 1))
    return as_pixels(source * (means.mean() / np.maximum(means, 1)))


CLASSICAL: dict[Flow, tuple[str, Callable[[Sample], Pixels]]] = {
    Flow.REMOVAL: ("OpenCV's Telea", filled),
    Flow.WHITE_BALANCE: ("grey world", grey_world),
}


def request(sample: Sample, steps: int) -> dict[str, Any]:
    """Write the sample as a REST client sends it, with a fixed seed."""
    asked = sample.request

    def encoded(pixels: Pixels | None) -> str | None:
        return None if pixels is None else base64_png(Image.fromarray(pixels))

    return {
        "task_type": str(asked.task),
        "prompt": asked.prompt,
        "input_image": encoded(asked.image),
        "conditional_images": [encoded(image) for image in asked.conditional_images] or None,
        "reference_image": encoded(asked.reference_image),
        "reference_mask_R": encoded(asked.reference_mask),
        "input_quality": str(asked.input_quality),
        "mask_tool_type": None if asked.mask_tool is None else str(asked.mask_tool),
        "num_inference_steps": steps,
        "seed": 1,
    }


async def measure(url: str, *, scenes: Mapping[int, int], steps: int) -> dict[str, Any]:
    """Edit held-out scenes one after the other on an otherwise idle server.

    Args:
        url: REST address of a server of the demo bundle.
        scenes: side of the square in pixels -> how many scenes of each flow.
        steps: how many denoising steps.

    Returns:
        `scores`: flow -> size -> method -> score -> mean and samples, as `scores` of
        export.demo_edits.results defines them; null where nothing differs. The methods are the
        server, the unedited picture and, for removal and white balance, one without a network.
        `seconds`: size -> the generation time that each edit reported.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    seconds: dict[int, list[float]] = {size: [] for size in scenes}
    async with rest.connect(url) as client:
        for size, count in scenes.items():
            await rest.edit(client, request(held_out(Flow.REMOVAL, 0, size), 2))  # warms up
            for flow in SHOWN:
                methods: dict[str, list[dict[str, float]]] = {}
                for index in range(count):
                    sample = held_out(flow, index, size)
                    result = await rest.edit(client, request(sample, steps))
                    seconds[size].append(result["generation_time"])
                    picture = np.asarray(from_base64(result["image"]))
                    pictures = {SERVER: picture, UNEDITED: sample.conditions.source}
                    if flow in CLASSICAL:
                        name, method = CLASSICAL[flow]
                        pictures[name] = method(sample)
                    for name, edited in pictures.items():
                        methods.setdefault(name, []).append(scores(sample, edited))
                found.setdefault(flow, {})[size] = {
                    name: by_score(each) for name, each in methods.items()
                }
    return {
        "steps": steps,
        "scenes": dict(scenes),
        "scores": found,
        "seconds": {size: summary(samples) for size, samples in seconds.items()},
    }


def by_score(each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Gather mean and samples of each score over scenes; None where a scene's score is infinite."""
    found = {}
    for score in each[0]:
        samples = [result[score] for result in each]
        found[score] = (
            {
                "mean": round(statistics.fmean(samples), 2),
                "samples": [round(sample, 2) for sample in samples],
            }
            if all(map(math.isfinite, samples))
            else None
        )
    return found


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw each flow's score by size and method, with the value to reach."""
    axes.axis("off")
    axes.set_title(f"held-out scenes, {results['steps']} steps: means, with each scene a dot")
    for number, (flow, (score, label, aim)) in enumerate(SHOWN.items()):
        panel = axes.inset_axes((0.12 + number % 2 * 0.56, 0.6 - number // 2 * 0.6, 0.34, 0.33))
        _draw_flow(panel, results["scores"][flow], score, aim)
        panel.set_title(flow, size="small")
        panel.set_xlabel(label, size="x-small")
        panel.tick_params(labelsize="x-small")


def _draw_flow(
    axes: Axes, sizes: Mapping[int, dict[str, Any]], score: str, aim: float | None
) -> None:
    labels: list[str] = []
    for size, methods in sizes.items():
        for name, found in methods.items():
            at = len(labels)
            colour = "tab:blue" if name == SERVER else "lightgrey"
            axes.barh(at, found[score]["mean"], color=colour)
            samples = found[score]["samples"]
            axes.scatter(samples, [at] * len(samples), s=4, color="black", zorder=2)
            labels.append(f"{name}, {size}²")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    if aim is not None:
        axes.axvline(aim, color="tab:red", linewidth=0.8)
