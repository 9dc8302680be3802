"""Owns the way of an edit from its conditions to its result, in units of engine work."""

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from image_edit.conditions import Box, Conditions, Pixels, Region, Size
from image_edit.messages import Progressed, Stage, Succeeded
from image_edit.output import encode_png, finish
from image_edit.previews import Previews
from image_edit.progress import StageCosts
from image_edit.report import build_info, build_plan_info
from image_edit.request import EditRequest, read_edit_request
from image_edit.spec import EditSpec, build_spec
from model_kit.laps import Laps

if TYPE_CHECKING:
    from model_kit.tensors import Tensors

WARM_UP_STEPS = 2


class Engine(Protocol):
    """What a run needs of `EditEngine`. It passes the engine's state from call to call."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Return the task types."""

    @property
    def distilled(self) -> bool:
        """Return whether the transformer reads guidance_scale."""

    def step_pixels(self, spec: EditSpec) -> int:
        """Return the pixels that the transformer reads in one step; its time grows with them."""

    def prepare(self, spec: EditSpec) -> Generator[None, None, Any]:
        """Prepare a new edit in several units of work, and return its state at the end."""

    def step(self, state: Any) -> None:
        """Take one denoising step."""

    def preview(self, state: Any) -> Pixels:
        """Return the picture as the engine predicts it now, RGB uint8, an eighth of its size."""

    def decode(self, state: Any) -> Pixels:
        """Return the picture, RGB uint8 [height, width, 3]."""

    def forget(self) -> None:
        """Let go of what belongs to the edit that had the last step."""

    def give_back_memory(self) -> None:
        """Free what no edit uses any more, for others on the device."""


class EditRunner:
    """Runs edits on one engine and learns from each how long the stages take."""

    def __init__(self, engine: Engine, bundle_name: str) -> None:
        self._engine = engine
        self._bundle_name = bundle_name
        # A guess until the warm-up has measured this model.
        self._costs = StageCosts(conditioning=0.0, encoding=1.0, step=1.0, decoding=1.0)

    def run(
        self, request: EditRequest, conditions: Conditions, laps: Laps
    ) -> Generator[Progressed | None, None, Succeeded]:
        """Carry out one edit and yield after each unit of engine work.

        Closing the generator ends the edit there.

        Args:
            request: the client's.
            conditions: built for it.
            laps: has the times of LOADING and CONDITIONING; gets those of all other stages.

        Yields:
            ENCODING, every finished step, DECODING; None after a unit without any news.

        Returns:
            The result.

        Raises:
            CodedError: as the engine does.
        """
        try:
            return (yield from self._run(request, conditions, laps))
        finally:
            # Also where it was cancelled or failed in the middle of its steps.
            self._engine.forget()

    def _run(
        self, request: EditRequest, conditions: Conditions, laps: Laps
    ) -> Generator[Progressed | None, None, Succeeded]:
        engine, costs, total = self._engine, self._costs, request.num_inference_steps

        def progressed(stage: Stage, step: int, preview: bytes = b"", info: str = "") -> Progressed:
            progress = costs.progress(stage, step, total)
            return Progressed(stage, step, total, progress, preview, info)

        specs = [build_spec(request, conditions, region) for region in conditions.regions]
        step_pixels = sum(map(engine.step_pixels, specs))
        expected_s = costs.expected_seconds(total, step_pixels)
        plan_info = build_plan_info(conditions, expected_s)
        yield progressed(Stage.ENCODING, 0, info=plan_info)
        states = []
        for spec in specs:
            states.append((yield from engine.prepare(spec)))
        previews = Previews(conditions) if request.preview else None
        laps.note(Stage.ENCODING)
        for step in range(1, total + 1):
            for number, state in enumerate(states):
                if number:
                    yield None  # so that a cancel takes effect between two regions
                engine.step(state)
            drawn = previews.draw([engine.preview(each) for each in states]) if previews else b""
            yield progressed(Stage.DENOISING, step, drawn)
        laps.note(Stage.DENOISING)
        yield progressed(Stage.DECODING, total)
        generated: list[Pixels] = []
        for state in states:
            generated.append(engine.decode(state))
            yield None
        finished = finish(generated, conditions)
        yield None
        image = encode_png(finished, conditions.profile)
        laps.note(Stage.DECODING)
        measured = laps.seconds
        self._costs = StageCosts(
            conditioning=measured[Stage.CONDITIONING],
            encoding=measured[Stage.ENCODING],
            step=measured[Stage.DENOISING] / total,
            decoding=measured[Stage.DECODING],
            step_pixels=step_pixels,
        )
        info = build_info(
            request,
            conditions,
            specs[0],
            distilled=engine.distilled,
            bundle=self._bundle_name,
            adapters=engine.adapters,
            timings=measured,
        )
        return Succeeded(total, image, info)

    def give_back_memory(self) -> None:
        """Make the engine free what no edit uses any more."""
        self._engine.give_back_memory()

    def warm_up(self, sizes: Sequence[Size], on_stage: Callable[[str], None]) -> None:
        """Edit grey pictures with every adapter, so that the first client does not wait longer.

        This loads or compiles kernels and fills caches. The last edit gives the costs.

        Args:
            sizes: width and height of each picture.
            on_stage: called with the name of each stage as it begins.
        """
        tensors: Tensors = {"NUM_INFERENCE_STEPS": [WARM_UP_STEPS], "SEED": [0], "PREVIEW": [True]}
        request = read_edit_request(tensors, static_schedule=False, max_bytes=0)
        for width, height in sizes:
            source = np.full((height, width, 3), 127, np.uint8)
            for task_type in self._engine.adapters:
                on_stage(f"warming up {task_type} at {width} x {height}")
                region = Region(
                    box=Box(0, 0, width, height),
                    content=(width, height),
                    images=np.stack([source, source, source]),
                    paste_mask=None,
                )
                conditions = Conditions(
                    picture=source,
                    profile=None,
                    regions=(region,),
                    composited=False,
                    in_place=False,
                    square=None,
                    size=(width, height),
                    prompt="",
                    task_type=task_type,
                    debug_info={},
                )
                laps = Laps()
                laps.seconds = {Stage.LOADING: 0.0, Stage.CONDITIONING: 0.0}
                for _ in self.run(request, conditions, laps):
                    pass
