from pathlib import Path

import pytest

from edit_settings import EditSettings
from tests.fakes.wire import model_config

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "model_repository" / "image_edit"


def parameters(path: str, **changes: str) -> dict[str, str]:
    config = model_config(path)
    return {key: value.string_value for key, value in config.parameters.items()} | changes


def test_production() -> None:
    settings = EditSettings.from_parameters(parameters("image_edit/config.pbtxt"), FOLDER)
    assert settings.dtype == "bfloat16"
    assert settings.condition_area == 1024 * 1024
    assert settings.scheduler_shift == 3.0
    assert settings.static_schedule is False
    assert settings.max_queue_size == 8


def test_the_cpu_profile_loads_the_demo_bundle() -> None:
    settings = EditSettings.from_parameters(parameters("image_edit/configs/cpu.pbtxt"), FOLDER)
    assert settings.bundle == ROOT / "bundles" / "demo"
    assert settings.dtype == "float32"
    assert settings.condition_area is None


def test_the_smaller_a100_keeps_its_weights_in_8_bits() -> None:
    path = "image_edit/configs/a100-40gb.pbtxt"
    settings = EditSettings.from_parameters(parameters(path), FOLDER)
    assert (settings.int8, settings.vae_tiling) == (True, True)
    default = EditSettings.from_parameters(parameters("image_edit/config.pbtxt"), FOLDER)
    assert (default.int8, default.vae_tiling) == (False, False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BUNDLE", ""),
        ("DTYPE", "float64"),
        ("QUANTIZATION", "int4"),
        ("VAE_TILING", "yes"),
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
        EditSettings.from_parameters(
            parameters("image_edit/configs/cpu.pbtxt", **{key: value}), FOLDER
        )


def test_a_missing_parameter_is_refused_by_name() -> None:
    without = parameters("image_edit/configs/cpu.pbtxt")
    del without["DTYPE"]
    with pytest.raises(ValueError, match="DTYPE is missing"):
        EditSettings.from_parameters(without, FOLDER)
