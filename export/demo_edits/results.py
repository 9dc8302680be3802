"""Owns editing samples with a bundle in this process, and measuring how well it does."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.demo_edits.samples import Flow, Sample, draw_sample
from export.demo_edits.score import angular_error, colour_difference, psnr
from export.scenes.edits import Pixels, as_pixels
from export.serving_code import EditEngine, EditSpec, EditState, Tuning, load_bundle

# The server's own values where a client names none, except for the steps.
TRUE_CFG_SCALE = 4.0
NEGATIVE_PROMPT = " "
SCHEDULER_SHIFT = 3.0
# First number of a held-out seed. Seeds of training begin with small numbers.
HELD_OUT = 2**31


class Editor:
    """A bundle on the CPU, with the condition area of the demo's profile.

    Args:
        bundle: the bundle's folder.
        tuning: how to run it; None: as the demo's profile does.
    """

    def __init__(self, bundle: Path, tuning: Tuning | None = None) -> None:
        loaded = load_bundle(bundle, tuning or Tuning("auto"), "cpu")
        self._pipeline = loaded.pipeline
        self._engine = EditEngine(loaded, None, SCHEDULER_SHIFT)

    @property
    def transformer(self) -> Any:
        """Return the pipeline's QwenImageTransformer2DModel."""
        return self._pipeline.transformer

    def edit(
        self,
        sample: Sample,
        steps: int = 8,
        true_cfg_scale: float = TRUE_CFG_SCALE,
        adapter: str | None = None,
        order: Sequence[int] | None = None,
    ) -> Pixels:
        """Edit a sample.

        Args:
            sample: its conditions go to the engine.
            steps: how many denoising steps.
            true_cfg_scale: guidance scale; above 1 the edit is guided.
            adapter: a task whose adapter is used; None: the sample's own task.
            order: indices of the condition images; None: their own order.

        Returns:
            RGB uint8 [height, width, 3] of the sample's size, composited where the flow does so.
        """
        conditions = sample.conditions
        images = np.stack(conditions.images)
        height, width = conditions.source.shape[:2]
        spec = EditSpec(
            task_type=adapter or str(sample.request.task),
            prompt=sample.request.prompt,
            negative_prompt=NEGATIVE_PROMPT,
            images=images if order is None else images[list(order)],
            size=(width, height),
            num_inference_steps=steps,
            true_cfg_scale=true_cfg_scale,
            guidance_scale=true_cfg_scale,
            seed=0,
            static_schedule=False,
        )
        *_, state = _with_result(self._engine.prepare(spec))
        for _ in range(steps):
            self._engine.step(state)
        generated: Pixels = self._engine.decode(state)
        if conditions.composite_mask is None:
            return generated
        fraction = conditions.composite_mask[..., None] / np.float32(255)
        return as_pixels(
            conditions.source + fraction * (generated - conditions.source.astype(float))
        )


def _with_result(stages: Generator[None, None, EditState]) -> Iterator[Any]:
    """Yield what the stages yield, and then what they return."""
    yield (yield from stages)


def held_out(flow: Flow, index: int, size: int) -> Sample:
    """Draw a sample that no training sees: the seed is held out, and no photograph is used."""
    return draw_sample(flow, [HELD_OUT, list(Flow).index(flow), index], size)


def on_photograph(flow: Flow, index: int, size: int, photograph: Pixels) -> Sample:
    """Draw a sample that no training sees; its background is cut from the photograph."""
    seed = [HELD_OUT, list(Flow).index(flow), index]
    return draw_sample(flow, seed, size, [photograph], photograph_fraction=1.0)


def scores(sample: Sample, picture: Pixels) -> dict[str, float]:
    """Measure one edit.

    Returns:
        For white-balance `angle` to the truth and `angle_before`, in degrees. For removal
        `inside`, `gain` over the unedited picture and `outside`, in dB. For insertion `colour`,
        the difference of mean colours inside the mask, 0..255, and `outside` in dB.
    """
    source, truth = sample.conditions.source, sample.truth
    if not sample.request.task.needs_mask:
        return {
            "angle": angular_error(picture, truth),
            "angle_before": angular_error(source, truth),
        }
    positioned = sample.conditions.composite_mask
    mask = sample.request.conditional_images[0][..., 0] if positioned is None else positioned
    inside = mask > 127
    outside = psnr(picture, source, mask == 0)
    if sample.request.task == "removal":
        within = psnr(picture, truth, inside)
        return {
            "inside": within,
            "gain": within - psnr(source, truth, inside),
            "outside": outside,
        }
    return {"colour": colour_difference(picture, truth, inside), "outside": outside}
