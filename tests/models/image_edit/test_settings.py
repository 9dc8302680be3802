from pathlib import Path

import pytest

from image_edit.settings import EditSettings, Tuning
from model_kit.parameters import Parameters
from tests.fakes.wire import model_config

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "model_repository" / "image_edit"


def parameters(path: str, **changes: str | None) -> Parameters:
    """Return a profile's parameters; None leaves one out."""
    config = model_config(path)
    found = {key: value.string_value for key, value in config.parameters.items()} | changes
    return Parameters({key: text for key, text in found.items() if text is not None}, FOLDER)


def test_production() -> None:
    settings = EditSettings.from_parameters(parameters("image_edit/config.pbtxt"))
    assert settings.tuning == Tuning("bfloat16", compile_blocks=True)
    assert settings.warm_up_sizes == ((1024, 1024),)
    assert settings.condition_area == 1024 * 1024
    assert settings.scheduler_shift == 3.0
    assert settings.static_schedule is False
    assert settings.max_queue_size == 8


def test_the_cpu_profile_loads_the_demo_bundle() -> None:
    settings = EditSettings.from_parameters(parameters("image_edit/configs/cpu.pbtxt"))
    assert settings.bundle == ROOT / "bundles" / "demo"
    assert settings.tuning == Tuning("auto")
    assert settings.condition_area is None


def test_the_smaller_a100_keeps_its_weights_in_8_bits() -> None:
    path = "image_edit/configs/a100-40gb.pbtxt"
    settings = EditSettings.from_parameters(parameters(path))
    assert settings.tuning == Tuning("bfloat16", quantization="int8", compile_blocks=True)


def test_hopper_multiplies_in_8_bits_and_compiles() -> None:
    settings = EditSettings.from_parameters(parameters("image_edit/configs/h100.pbtxt"))
    assert settings.tuning == Tuning("bfloat16", quantization="fp8", compile_blocks=True)


def test_everything_that_tunes_is_read() -> None:
    changes = {
        "DTYPE": "float16",
        "ATTENTION_BACKEND": "sage",
        "COMPILE": "false",
        "STEP_CACHE": "0.12",
        "WARM_UP_SIZES": "1024x768, 512x512",
    }
    found = parameters("image_edit/config.pbtxt", **changes)
    settings = EditSettings.from_parameters(found)
    assert settings.tuning == Tuning("float16", "none", False, "sage", False, 0.12)
    assert settings.warm_up_sizes == ((1024, 768), (512, 512))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BUNDLE", ""),
        ("DTYPE", "float64"),
        ("QUANTIZATION", "int4"),
        ("VAE_TILING", "yes"),
        ("ATTENTION_BACKEND", ""),
        ("COMPILE", "1"),
        ("STEP_CACHE", "-0.1"),
        ("STEP_CACHE", "much"),
        ("WARM_UP_SIZES", "1024"),
        ("WARM_UP_SIZES", "16x16"),
        ("WARM_UP_SIZES", "1024x1024,"),
        ("WARM_UP_SIZES", "4096x1024"),
        ("CONDITION_AREA", "0"),
        ("CONDITION_AREA", "input"),
        ("MAX_QUEUE_SIZE", "-1"),
        ("MAX_QUEUE_SIZE", "³"),
        ("MAX_REQUEST_BYTES", "1e6"),
        ("SCHEDULER_SHIFT", "0"),
        ("SCHEDULER_SHIFT", "10.5"),
        ("SCHEDULER_SHIFT", "nan"),
        ("SCHEDULER_SHIFT", "three"),
        ("ENABLE_FLOWMATCH_SCHEDULER", "yes"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        EditSettings.from_parameters(parameters("image_edit/configs/cpu.pbtxt", **{key: value}))


def test_a_missing_parameter_is_refused_by_name() -> None:
    without = parameters("image_edit/configs/cpu.pbtxt", DTYPE=None)
    with pytest.raises(ValueError, match="DTYPE is missing"):
        EditSettings.from_parameters(without)
