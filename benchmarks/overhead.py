"""Owns measuring what the server adds: an edit by REST and SSE beside one by diffusers alone."""

import time
from pathlib import Path
from typing import Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as edit_plus
import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image

from benchmarks import client as rest
from benchmarks.pictures import from_base64
from benchmarks.report import summary
from export.serving_code import Tuning, mark_picture_tokens, torch_dtype


class BareDiffusers:
    """diffusers' own pipeline with the same bundle, in this process."""

    def __init__(self, bundle: Path, size: int) -> None:
        # The demo profile encodes conditions at the output's area. The text encoder reads them at
        # that area too, if it is smaller than the text encoder's usual one.
        edit_plus.VAE_IMAGE_SIZE = size * size
        edit_plus.CONDITION_IMAGE_SIZE = min(edit_plus.CONDITION_IMAGE_SIZE, size * size)
        self._pipeline = QwenImageEditPlusPipeline.from_pretrained(
            bundle / "pipeline",
            dtype=torch_dtype(Tuning("auto"), "cpu"),  # as in the demo's profile
            local_files_only=True,
        )
        mark_picture_tokens(self._pipeline.text_encoder)  # as the server must, too
        self._pipeline.load_lora_weights(
            bundle, weight_name="adapters/insertion_cp.safetensors", adapter_name="insertion"
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def edit(self, conditions: list[Image.Image], request: dict[str, Any]) -> Image.Image:
        """Run `pipe()` with the same conditions and settings as the server."""
        width, height = conditions[-1].size
        picture: Image.Image = self._pipeline(
            image=conditions,
            prompt=request["prompt"],
            negative_prompt=request["negative_prompt"],
            true_cfg_scale=request["true_cfg_scale"],
            num_inference_steps=request["num_inference_steps"],
            width=width,
            height=height,
            generator=torch.Generator().manual_seed(request["seed"]),
        ).images[0]
        return picture


async def measure(url: str, bundle: Path, *, pairs: int, steps: int, size: int) -> dict[str, Any]:
    """Time both by turns, diffusers first, in one run.

    An edit by REST lasts from sending the request to holding the decoded result: submission,
    stream and result.

    Returns:
        Seconds of both, the ratio of each pair, and how far the two pictures differ.
    """
    request = rest.edit_request(size, steps)
    bare = BareDiffusers(bundle, size)
    seconds: dict[str, list[float]] = {"bare": [], "rest": []}
    async with rest.connect(url) as client:
        warm_up = await rest.edit(client, request)
        conditions = [from_base64(image) for image in warm_up["debug_info"]["conditional_images"]]
        expected = bare.edit(conditions, request)
        for _ in range(pairs):
            started = time.perf_counter()
            bare.edit(conditions, request)
            seconds["bare"].append(time.perf_counter() - started)
            started = time.perf_counter()
            edited = from_base64((await rest.edit(client, request))["image"])
            seconds["rest"].append(time.perf_counter() - started)
    difference = np.abs(np.asarray(edited, np.int16) - np.asarray(expected, np.int16))
    return {
        "pairs": pairs,
        "steps": steps,
        "size": size,
        "torch_threads": torch.get_num_threads(),
        "bare_s": summary(seconds["bare"]),
        "rest_s": summary(seconds["rest"]),
        "ratio": summary([b / a for a, b in zip(seconds["bare"], seconds["rest"], strict=True)]),
        "largest_pixel_difference": int(difference.max()),
    }


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw both times of every pair and the median ratio."""
    for key, label in (("bare_s", "diffusers pipe()"), ("rest_s", "REST + SSE")):
        axes.plot(range(1, results["pairs"] + 1), results[key]["samples"], "o-", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        title=f"One {results['steps']}-step edit at {results['size']}²: "
        f"median ratio {results['ratio']['median']:.3f}",
        xlabel="pair",
        ylabel="seconds",
        ylim=(0, None),
    )
    axes.legend()
