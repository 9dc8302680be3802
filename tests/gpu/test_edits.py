"""The demo bundle on a GPU, in every profile, loaded in one thread and served in another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from export.demo_edits import bundle as demo_bundle
from image_edit.engine.bundle import load_bundle
from image_edit.engine.engine import EditEngine
from image_edit.settings import EditSettings, Tuning
from model_kit.errors import Code, CodedError
from model_kit.parameters import Parameters
from tests.fakes.wire import model_config
from tests.models.image_edit.edits import picture
from tests.models.image_edit.engine.test_engine import SHIFT, denoised, prepared, spec_of
from tests.models.image_edit.test_profiles import psnr

if TYPE_CHECKING:
    from image_edit.conditions import Pixels

pytestmark = pytest.mark.gpu

FOLDER = Path(__file__).parents[2] / "model_repository" / "image_edit"
PROFILES = ("config.pbtxt", "configs/a100-40gb.pbtxt", "configs/h100.pbtxt")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundle") / "demo"
    demo_bundle.place(place)
    return place


def engine_of(folder: Path, tuning: Tuning, device: str) -> EditEngine:
    with ThreadPoolExecutor(1) as loader:
        bundle = loader.submit(load_bundle, folder, tuning, device).result()
    return EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)


def edited(engine: EditEngine, side: int) -> Pixels:
    images = np.stack([picture(side, side, seed) for seed in range(2)])
    spec = spec_of(images=images, size=(side, side), num_inference_steps=4)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: engine.decode(denoised(engine, spec))).result()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_picture_is_that_of_the_cpu(folder: Path, profile: str) -> None:
    parameters = model_config(f"image_edit/{profile}").parameters.items()
    texts = {key: value.string_value for key, value in parameters}
    tuning = EditSettings.from_parameters(Parameters(texts, FOLDER)).tuning
    if tuning.quantization == "fp8" and torch.cuda.get_device_capability(0) < (8, 9):
        pytest.skip("this GPU has no 8-bit floats")
    expected = engine_of(folder, Tuning("float32"), "cpu")
    engine = engine_of(folder, tuning, "cuda:0")
    for side in (64, 256):
        assert psnr(edited(engine, side), edited(expected, side)) > 20


def test_out_of_memory_is_survived(folder: Path) -> None:
    engine = engine_of(folder, Tuning("bfloat16"), "cuda:0")
    expected = edited(engine, 64)
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(0) + 64 * 2**20) / whole, 0
    )
    try:
        with pytest.raises(CodedError) as caught:
            prepared(engine, spec_of(images=np.stack([picture(2048, 2048)]), size=(2048, 2048)))
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    engine.give_back_memory()
    assert np.array_equal(edited(engine, 64), expected)
