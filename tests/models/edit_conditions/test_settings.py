from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from edit_conditions.quality import InputQuality
from edit_conditions.settings import ConditionSettings
from model_kit.parameters import Parameters

FOLDER = Path(__file__).parents[3] / "model_repository" / "edit_conditions"

PARAMETERS = {
    "INPUT_QUALITY": "original",
    "MAX_IMAGE_PIXELS": "1000",
    "LAMA_MODEL": "",
    "SHADOW_HINT": "true",
}


def test_parameters_become_typed_settings(tmp_path: Path) -> None:
    settings = ConditionSettings.from_parameters(
        Parameters({**PARAMETERS, "EXECUTION_ENV_PATH": "Triton's own"}, tmp_path)
    )
    assert settings == ConditionSettings(
        input_quality=InputQuality.ORIGINAL,
        max_image_pixels=1000,
        lama_model=None,
        shadow_hint=True,
    )


def test_a_relative_lama_model_starts_at_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "lama.pt").touch()
    for text in ("lama.pt", str(tmp_path / "lama.pt")):
        settings = ConditionSettings.from_parameters(
            Parameters({**PARAMETERS, "LAMA_MODEL": text}, tmp_path)
        )
        assert settings.lama_model == tmp_path / "lama.pt"


@pytest.mark.parametrize("key", PARAMETERS)
def test_a_missing_parameter_is_named(key: str, tmp_path: Path) -> None:
    rest = {name: value for name, value in PARAMETERS.items() if name != key}
    with pytest.raises(ValueError, match=f"parameter {key} is missing"):
        ConditionSettings.from_parameters(Parameters(rest, tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT_QUALITY", ""),
        ("INPUT_QUALITY", "Resized"),
        ("INPUT_QUALITY", "${quality}"),
        ("MAX_IMAGE_PIXELS", ""),
        ("MAX_IMAGE_PIXELS", "0"),
        ("MAX_IMAGE_PIXELS", "-5"),
        ("MAX_IMAGE_PIXELS", "1e6"),
        ("MAX_IMAGE_PIXELS", "²"),
        ("LAMA_MODEL", "absent.pt"),
        ("LAMA_MODEL", "."),
        ("SHADOW_HINT", ""),
        ("SHADOW_HINT", "True"),
        ("SHADOW_HINT", "1"),
    ],
)
def test_a_bad_value_is_refused_by_name(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"parameter {key}"):
        ConditionSettings.from_parameters(Parameters({**PARAMETERS, key: value}, tmp_path))


def test_the_shipped_config_reads() -> None:
    config = text_format.Parse(
        (FOLDER / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    settings = ConditionSettings.from_parameters(Parameters(parameters, FOLDER))
    assert settings.input_quality is InputQuality.RESIZED
    assert settings.lama_model is None
    assert settings.shadow_hint is False
