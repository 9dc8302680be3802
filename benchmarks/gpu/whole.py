"""Owns measuring whole edits at full size: our engine beside diffusers' own pipeline.

All weights are random. The tokenizer is the demo's, which has fewer words.
"""

import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as edit_plus
import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from benchmarks.gpu import machine, removal, text_encoder, transformer, vae
from export import demo_edits
from image_edit.engine.bundle import Bundle
from image_edit.engine.engine import EditEngine
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.preview import PreviewMap
from image_edit.engine.text_encoder import drop_word_head, remember_last_pictures
from image_edit.engine.vae import keep_to_pictures

PIPELINE = Path(demo_edits.__file__).parent / "weights" / "pipeline"
STEPS = 3
# Side of the output, and number of condition images.
JOBS = ((512, 1), (512, 3), (1024, 1), (1024, 3))
# Pixels of a condition image as diffusers' own pipeline sees it.
AREA = edit_plus.VAE_IMAGE_SIZE
# Fewest and most pixels of a picture as Qwen2.5-VL sees it; the demo's sees smaller ones.
PUBLISHED_SIZE = {"shortest_edge": 3136, "longest_edge": 12_845_056}


@torch.inference_mode()
def measure() -> dict[str, Any]:
    """Measure the same edits by `pipe()`, then by the engine, at two areas of conditions."""
    bench = transformer.Bench()
    pipeline = _pipeline(bench.transformer)
    bench.transformer.set_adapters([removal.TASK])
    rate = machine.matrix_rate()
    jobs: tuple[tuple[int, int], ...] = machine.current.scale.of(JOBS, ((64, 1),))
    area = machine.current.scale.of(AREA, 96 * 96)
    edit_plus.VAE_IMAGE_SIZE = area
    edit_plus.CONDITION_IMAGE_SIZE = min(edit_plus.CONDITION_IMAGE_SIZE, area)
    found: dict[str, Any] = {}
    for job in jobs:
        stock, elapsed, peak = _timed(functools.partial(_by_diffusers, pipeline, *job))
        found[_named(*job)] = {"diffusers": {"s": elapsed, "peak": peak}}
        found[_named(*job)]["picture"] = stock
    _as_served(pipeline)
    for condition_area, label in ((area, "engine"), (None, "engine_matched")):
        engine = _engine(pipeline, condition_area)
        for side, conditions in jobs:
            (picture, stages), elapsed, peak = _timed(
                functools.partial(_by_engine, engine, side, conditions)
            )
            floor = stages.pop("flop") / rate / 1e12
            found[_named(side, conditions)][label] = {
                "s": elapsed,
                "peak": peak,
                "floor_s": round(floor, 4),
                "step_by_floor": round(stages["step_s"] / floor, 2),
            } | stages
            if label == "engine":
                stock = found[_named(side, conditions)].pop("picture")
                # Convolutions of the VAE are rounded in another order.
                difference = np.abs(picture.astype(np.int16) - stock).max()
                found[_named(side, conditions)]["largest_difference"] = int(difference)
    summary = []
    for name, each in found.items():
        ours, matched = each["engine"], each["engine_matched"]
        summary.append(
            f"{name}: {ours['s']} s beside {each['diffusers']['s']} s of diffusers, a step "
            f"{ours['step_s']} s ({ours['step_by_floor']} of the floor), with matched conditions "
            f"{matched['step_s']} s"
        )
    return {
        "steps": STEPS,
        "bf16_tflops": round(rate, 1),
        "jobs": found,
        "summary": summary,
    }


def _named(side: int, conditions: int) -> str:
    return f"{side}, {conditions}"


def _pipeline(network: Any) -> Any:
    """Put a pipeline together around a transformer."""
    tokens = json.loads((PIPELINE / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    encoder = text_encoder.build(
        **{
            key: tokens[key]
            for key in ("image_token_id", "vision_start_token_id", "vision_end_token_id")
        }
    )
    mark_picture_tokens(encoder)  # as the server must, too
    processor = AutoProcessor.from_pretrained(PIPELINE / "processor")
    processor.image_processor.size = PUBLISHED_SIZE
    pipeline = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(PIPELINE / "scheduler"),
        vae=vae.build(),
        text_encoder=encoder,
        tokenizer=AutoTokenizer.from_pretrained(PIPELINE / "tokenizer"),
        processor=processor,
        transformer=network,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _as_served(pipeline: Any) -> None:
    drop_word_head(pipeline.text_encoder)
    remember_last_pictures(pipeline.text_encoder)
    keep_to_pictures(pipeline.vae)


def _engine(pipeline: Any, condition_area: int | None) -> EditEngine:
    preview = PreviewMap(**json.loads((PIPELINE.parent / "manifest.json").read_text())["preview"])
    bundle = Bundle("random", pipeline, {removal.TASK: (removal.TASK,)}, preview, AREA, {})
    return EditEngine(bundle, condition_area, scheduler_shift=3.0)


def _pictures(side: int, conditions: int) -> npt.NDArray[np.uint8]:
    picture = removal.gradient(side)
    return np.stack([np.roll(picture, 16 * index, axis=0) for index in range(conditions)])


def _by_diffusers(pipeline: Any, side: int, conditions: int, steps: int) -> npt.NDArray[np.uint8]:
    made = pipeline(
        image=[Image.fromarray(each) for each in _pictures(side, conditions)],
        prompt=removal.PROMPT,
        negative_prompt=removal.NEGATIVE_PROMPT,
        true_cfg_scale=removal.TRUE_CFG_SCALE,
        num_inference_steps=steps,
        width=side,
        height=side,
        generator=torch.Generator().manual_seed(removal.SEED),
    )
    return np.asarray(made.images[0])


def _by_engine(
    engine: EditEngine, side: int, conditions: int, steps: int
) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
    """Return the picture, the seconds of each stage, and the operations of a step."""
    images = _pictures(side, conditions)
    clock = _Clock()
    state = removal.prepared(engine, images, steps)
    prepared = clock.lap()
    laps = []
    for _ in range(steps):
        engine.step(state)
        laps.append(clock.lap())
    picture = engine.decode(state)
    found = {
        "prepare_s": round(prepared, 4),
        "step_s": round(statistics.median(laps), 4),
        "decode_s": round(clock.lap(), 4),
        "flop": transformer.floating_operations(engine._pipeline.transformer, state),
    }
    return picture, found


class _Clock:
    """Measures from one lap to the next, by the host's clock once the device has done its work."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        machine.synchronize()
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _timed(edit: Callable[[int], Any]) -> tuple[Any, float, float]:
    """Edit with few steps to warm up, then time it; return the result, seconds, peak in GiB."""
    edit(2)  # diffusers' schedule of one step is no number
    with machine.peak() as peak:
        started = time.perf_counter()
        result = edit(STEPS)
        machine.synchronize()
        elapsed = time.perf_counter() - started
    return result, round(elapsed, 3), round(peak["allocated"], 2)
