"""One edit from its conditions to its result, as units of engine work that can be interleaved."""

from collections.abc import Callable, Generator, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from image_edit.conditions import Conditions, Pixels
from image_edit.messages import Progressed, Stage, Succeeded
from image_edit.output import encode_png, finish
from image_edit.progress import StageCosts
from image_edit.report import build_info
from image_edit.request import EditRequest, Tensors, read_request
from image_edit.spec import EditSpec, Size, build_spec, output_size

WARM_UP_STEPS = 2


class Engine(Protocol):
    """What a run needs of `EditEngine`, whose state it only carries from call to call."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Task types."""

    @property
    def distilled(self) -> bool:
        """Whether the transformer reads guidance_scale."""

    def prepare(self, spec: EditSpec) -> Generator[None, None, Any]:
        """Returns the state of a new edit, at the end of several units of work."""

    def step(self, state: Any) -> None:
        """Takes one denoising step."""

    def preview(self, state: Any) -> bytes:
        """Returns a WebP of the picture as predicted now."""

    def decode(self, state: Any) -> Pixels:
        """Returns the picture, RGB uint8 [height, width, 3]."""

    def give_back_memory(self) -> None:
        """Frees what no edit uses any more, for others on the device."""


class EditRunner:
    """Runs edits on one engine and learns from each how the time divides."""

    def __init__(self, engine: Engine, bundle_name: str) -> None:
        self._engine = engine
        self._bundle_name = bundle_name
        # Of any plausible model; the warm-up measures this one.
        self._costs = StageCosts(conditioning=0.0, encoding=1.0, step=1.0, decoding=1.0)

    def run(
        self, request: EditRequest, conditions: Conditions, timings: Mapping[Stage, float]
    ) -> Generator[Progressed | None, None, Succeeded]:
        """Carries out one edit, yielding after each unit of engine work.

        Closing the generator ends the edit there.

        Args:
            request: the client's.
            conditions: built for it.
            timings: seconds of the stages LOADING and CONDITIONING.

        Yields:
            ENCODING, every finished step, DECODING; None where there is nothing to tell.

        Returns:
            The result.

        Raises:
            EditError: as the engine does.
        """
        engine, costs, total = self._engine, self._costs, request.num_inference_steps

        def progressed(stage: Stage, step: int, preview: bytes = b"") -> Progressed:
            return Progressed(stage, step, total, costs.progress(stage, step, total), preview)

        yield progressed(Stage.ENCODING, 0)
        started = perf_counter()
        spec = build_spec(request, conditions)
        state = yield from engine.prepare(spec)
        encoded = perf_counter()
        for step in range(1, total + 1):
            engine.step(state)
            preview = engine.preview(state) if request.preview else b""
            yield progressed(Stage.DENOISING, step, preview)
        denoised = perf_counter()
        yield progressed(Stage.DECODING, total)
        size = output_size(request, conditions)
        image = encode_png(finish(engine.decode(state), size, conditions))
        decoded = perf_counter()

        measured = {
            **timings,
            Stage.ENCODING: encoded - started,
            Stage.DENOISING: denoised - encoded,
            Stage.DECODING: decoded - denoised,
        }
        self._costs = StageCosts(
            conditioning=measured[Stage.CONDITIONING],
            encoding=measured[Stage.ENCODING],
            step=measured[Stage.DENOISING] / total,
            decoding=measured[Stage.DECODING],
        )
        info = build_info(
            request,
            conditions,
            spec,
            output_size=size,
            distilled=engine.distilled,
            bundle=self._bundle_name,
            adapters=engine.adapters,
            timings=measured,
        )
        return Succeeded(total, image, info)

    def give_back_memory(self) -> None:
        """Has the engine free what no edit uses any more."""
        self._engine.give_back_memory()

    def warm_up(self, sizes: Sequence[Size], on_stage: Callable[[str], None]) -> None:
        """Edits grey pictures with every adapter, so that the first client pays for nothing twice.

        Kernels are loaded or compiled and caches filled; the costs come from the last edit.

        Args:
            sizes: width and height of each picture.
            on_stage: called with what begins now, in words.
        """
        small: Tensors = {"NUM_INFERENCE_STEPS": [WARM_UP_STEPS], "SEED": [0], "PREVIEW": [True]}
        request = read_request(small, static_schedule=False, max_bytes=0)
        for width, height in sizes:
            source = np.full((height, width, 3), 127, np.uint8)
            for task_type in self._engine.adapters:
                on_stage(f"warming up {task_type} at {width} x {height}")
                conditions = Conditions(
                    images=np.stack([source, source, source]),
                    source=source,
                    composite_mask=None,
                    prompt="",
                    task_type=task_type,
                    debug_info={},
                )
                timings = {Stage.LOADING: 0.0, Stage.CONDITIONING: 0.0}
                for _ in self.run(request, conditions, timings):
                    pass
