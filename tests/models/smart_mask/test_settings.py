from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from model_kit.parameters import Parameters
from smart_mask.settings import MaskSettings
from tests.fakes.wire import model_config

if TYPE_CHECKING:
    from pathlib import Path

PARAMETERS = {
    "BUNDLE": "network",
    "CONFIDENCE": "0.25",
    "IOU": "0.7",
    "MAX_DETECTIONS": "300",
    "WORKERS": "2",
    "MAX_QUEUE_SIZE": "64",
    "CACHE_BYTES": "1000",
    "CACHE_TTL_S": "3600",
    "MAX_IMAGE_PIXELS": "4096",
    "MAX_REQUEST_BYTES": "10000",
}


def write_manifest(folder: Path, **changes: object) -> None:
    (folder / "network").mkdir()
    manifest = {"name": "small", "image_size": 320, **changes}
    (folder / "network" / "manifest.json").write_text(json.dumps(manifest))


def test_parameters_and_manifest_are_read(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    settings = MaskSettings.from_parameters(Parameters(PARAMETERS | {"shm": "other"}, tmp_path))
    assert (settings.network, settings.image_size) == ("small", 320)
    assert (settings.confidence, settings.iou, settings.max_detections) == (0.25, 0.7, 300)
    assert (settings.workers, settings.max_queue_size) == (2, 64)
    assert (settings.cache_bytes, settings.cache_ttl_s) == (1000, 3600)
    assert (settings.max_image_pixels, settings.max_request_bytes) == (4096, 10000)


@pytest.mark.parametrize(("said", "confidence"), [({"confidence": 0.1}, 0.1), ({}, 0.25)])
def test_the_bundle_may_say_the_confidence(
    tmp_path: Path, said: dict[str, object], confidence: float
) -> None:
    write_manifest(tmp_path, **said)
    settings = MaskSettings.from_parameters(
        Parameters(PARAMETERS | {"CONFIDENCE": "auto"}, tmp_path)
    )
    assert settings.confidence == confidence


@pytest.mark.parametrize("key", PARAMETERS)
def test_a_missing_parameter_is_named(tmp_path: Path, key: str) -> None:
    write_manifest(tmp_path)
    with pytest.raises(ValueError, match=f"parameter {key} is missing"):
        MaskSettings.from_parameters(Parameters({**PARAMETERS, key: ""}, tmp_path))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("CONFIDENCE", "1.5"),
        ("CONFIDENCE", "high"),
        ("IOU", "0"),
        ("IOU", "nan"),
        ("WORKERS", "0"),
        ("WORKERS", "-2"),
        ("CACHE_BYTES", "1e9"),
        ("MAX_IMAGE_PIXELS", "²"),
    ],
)
def test_a_bad_parameter_is_named(tmp_path: Path, key: str, text: str) -> None:
    write_manifest(tmp_path)
    with pytest.raises(ValueError, match=f"parameter {key} must be"):
        MaskSettings.from_parameters(Parameters({**PARAMETERS, key: text}, tmp_path))


@pytest.mark.parametrize("changes", [{"image_size": "large"}, {"image_size": None}])
def test_an_unreadable_manifest_is_named(tmp_path: Path, changes: dict[str, object]) -> None:
    write_manifest(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"parameter BUNDLE: .*manifest.json cannot be read"):
        MaskSettings.from_parameters(Parameters(PARAMETERS, tmp_path))


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"parameter BUNDLE: .*cannot be read"):
        MaskSettings.from_parameters(Parameters(PARAMETERS, tmp_path))


@pytest.mark.parametrize("path", ["smart_mask/config.pbtxt", "smart_mask/configs/cpu.pbtxt"])
def test_every_profile_has_good_parameters(tmp_path: Path, path: str) -> None:
    write_manifest(tmp_path)
    configured = model_config(path).parameters
    parameters = {key: value.string_value for key, value in configured.items()}
    MaskSettings.from_parameters(Parameters(parameters | {"BUNDLE": "network"}, tmp_path))
