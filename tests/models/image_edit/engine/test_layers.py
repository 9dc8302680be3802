"""Calls between the layers of the demo bundle's own networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from image_edit.engine.bundle import Bundle, load_bundle
from image_edit.engine.engine import EditEngine
from image_edit.settings import Tuning
from image_edit.spec import build_spec
from image_edit.work import GivenUpError

from ..edits import conditions_of, request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from image_edit.conditions import Pixels


class Layers:
    """Counts the layers, and gives up at one of them."""

    def __init__(self) -> None:
        self.passed = 0
        self.give_up_at: int | None = None

    def pass_one(self) -> None:
        self.passed += 1
        if self.passed == self.give_up_at:
            raise GivenUpError


@pytest.fixture(scope="module")
def layers() -> Layers:
    return Layers()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "step cache"])
def own_bundle(request: pytest.FixtureRequest, bundle_folder: Path, layers: Layers) -> Bundle:
    tuning = Tuning("float32", step_cache=0.05 if request.param else 0.0)
    return load_bundle(bundle_folder, tuning, "cpu", on_layer=layers.pass_one)


def units(engine: EditEngine) -> Iterator[Callable[[], object]]:
    """Return the units of one edit; each is called once, in order."""
    request, conditions = request_of(NUM_INFERENCE_STEPS=2), conditions_of()
    preparing = engine.prepare(build_spec(request, conditions, conditions.regions[0]))
    states = []

    def prepare() -> None:
        try:
            next(preparing)
        except StopIteration as end:
            states.append(end.value)

    while not states:
        yield prepare
    yield lambda: engine.step(states[0])
    yield lambda: engine.step(states[0])
    yield lambda: engine.decode(states[0])


def picture(engine: EditEngine) -> Pixels:
    [*_, drawn] = [unit() for unit in units(engine)]
    assert isinstance(drawn, np.ndarray)
    return drawn


def test_every_unit_of_work_passes_layers(own_bundle: Bundle, layers: Layers) -> None:
    layers.give_up_at = None
    engine = EditEngine(own_bundle, None, 3.0)
    passed = []
    for unit in units(engine):
        before = layers.passed
        unit()
        passed.append(layers.passed - before)
    # The last unit of the preparation only gathers what the others computed.
    assert [count for count in passed if count == 0] == [0]
    assert passed[-4] == 0
    blocks = len(own_bundle.pipeline.transformer.transformer_blocks)
    assert passed[-2] == 2 * blocks  # guided: twice


def test_a_unit_given_up_at_any_layer_leaves_nothing_behind(
    own_bundle: Bundle, layers: Layers
) -> None:
    layers.give_up_at = None
    engine = EditEngine(own_bundle, None, 3.0)
    whole = picture(engine)
    for number in range(7):
        for later in (1, 3):
            layers.give_up_at = None
            left = units(engine)
            for _ in range(number):
                next(left)()
            unit = next(left)
            layers.give_up_at = layers.passed + later
            try:
                unit()
            except GivenUpError:
                assert layers.passed == layers.give_up_at
            layers.give_up_at = None
            np.testing.assert_array_equal(picture(engine), whole)


def test_what_is_given_up_is_no_fault_of_the_device(own_bundle: Bundle, layers: Layers) -> None:
    layers.give_up_at = layers.passed + 1
    unit = next(units(EditEngine(own_bundle, None, 3.0)))
    with pytest.raises(GivenUpError):
        unit()
    assert not torch.is_inference_mode_enabled()
