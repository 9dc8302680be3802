"""perf_analyzer's input names real tensors and carries pictures that decode."""

import base64
import io
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import perf_analyzer

CONFIGS = Path(__file__).parents[2] / "model_repository"
PROFILES = [perf_analyzer.edits(64, steps=2), perf_analyzer.masks(64), perf_analyzer.networks(32)]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.model)
def test_every_input_is_declared_by_the_model(profile: perf_analyzer.Profile) -> None:
    config = (CONFIGS / profile.model / "config.pbtxt").read_text()
    assert set(profile.data) <= set(re.findall(r'name: "(\w+)"', config))


@pytest.mark.parametrize("profile", PROFILES[:2], ids=lambda profile: profile.model)
def test_a_picture_follows_its_length(profile: perf_analyzer.Profile) -> None:
    element = base64.b64decode(profile.data["IMAGE"]["content"]["b64"])
    (length,) = struct.unpack_from("<I", element)
    assert length == len(element) - 4
    assert Image.open(io.BytesIO(element[4:])).size == (64, 64)


def test_a_network_image_has_its_bytes() -> None:
    data = base64.b64decode(PROFILES[2].data["images"]["content"]["b64"])
    assert len(data) == 4 * 3 * 32 * 32
