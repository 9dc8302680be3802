"""Owns small edits for tests: pictures, requests, conditions, and a fake engine."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from image_edit.conditions import Box, Conditions, Pixels, Region
from image_edit.request import EditRequest, read_edit_request
from image_edit.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from image_edit.spec import EditSpec


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Pixels:
    """Return a smooth random picture, RGB uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def request_of(**inputs: Any) -> EditRequest:
    """Return a request of the given inputs, one element each, of 3 steps by default."""
    elements = {"NUM_INFERENCE_STEPS": 3, "SEED": 7, **inputs}
    return read_edit_request(
        {name: [value] for name, value in elements.items()}, static_schedule=False, max_bytes=1000
    )


def region_of(picture_: Pixels | None = None, **changes: Any) -> Region:
    """Return the region of a whole picture, by default a small one."""
    images = np.stack([picture(seed=seed) for seed in range(2)])
    height, width = (images[0] if picture_ is None else picture_).shape[:2]
    if picture_ is not None:
        canvas = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
        canvas[:height, :width] = picture_[..., :3]
        images = np.stack([canvas, canvas])
    whole = Region(Box(0, 0, width, height), (width, height), images, None)
    return replace(whole, **changes)


def conditions_of(**changes: Any) -> Conditions:
    """Conditions of a small removal that gives the whole generated frame, in its own size."""
    plain = Conditions(
        picture=picture(seed=0),
        profile=None,
        regions=(region_of(),),
        composited=False,
        in_place=False,
        square=None,
        size=(64, 64),
        prompt="remove it",
        task_type="removal",
        debug_info={"mask_A": "abc"},
    )
    found = replace(plain, **changes)
    if "size" in changes:
        return found
    height, width = found.picture.shape[:2]
    return replace(found, size=(found.square or width, found.square or height))


class Gate:
    """Stops a thread until the test lets it pass, or has it fail."""

    def __init__(self) -> None:
        self._outcomes: queue.SimpleQueue[Exception | bool | None] = queue.SimpleQueue()
        self.occupied = threading.Event()
        """Set while a thread is at the gate."""

    def enter(self, on_layer: Callable[[], None] = lambda: None) -> None:
        """Run in the thread.

        Args:
            on_layer: called for each layer that the thread may pass while it stays at the gate.
        """
        self.occupied.set()
        try:
            while (outcome := self._outcomes.get(timeout=120)) is None:
                on_layer()
        finally:
            self.occupied.clear()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome:
            self._outcomes.put(True)

    def let(self, count: int = 1) -> None:
        """Let it pass `count` times."""
        for _ in range(count):
            self._outcomes.put(False)

    def let_layer(self) -> None:
        """Let it pass one layer, but not the gate."""
        self._outcomes.put(None)

    def fail(self, error: Exception) -> None:
        """Let it pass once, with this error."""
        self._outcomes.put(error)

    def open(self) -> None:
        """Let it pass from now on."""
        self._outcomes.put(True)


class FakeEngine:
    """An engine of grey pictures, which needs one pass through its gate per unit of work.

    One to prepare, one per step, one to decode.
    """

    adapters = ("insertion", "removal", "white-balance")
    distilled = False

    def __init__(self) -> None:
        self.gate = Gate()
        self.work = Work()
        self.forgotten = 0

    def prepare(self, spec: EditSpec) -> Generator[None, None, EditSpec]:
        self.gate.enter(self.work.go_on)
        yield
        return spec

    def step(self, state: EditSpec) -> None:
        self.gate.enter(self.work.go_on)

    def preview(self, state: EditSpec) -> Pixels:
        width, height = state.size
        return np.full((height // 8, width // 8, 3), 55, np.uint8)

    def decode(self, state: EditSpec) -> Pixels:
        self.gate.enter(self.work.go_on)
        width, height = state.size
        return np.full((height, width, 3), 99, np.uint8)

    def step_pixels(self, spec: EditSpec) -> int:
        return len(spec.images) * spec.size[0] * spec.size[1]

    def forget(self) -> None:
        self.forgotten += 1

    def give_back_memory(self) -> None:
        pass
