"""perf_analyzer's input names real tensors and carries pictures that decode."""

import base64
import io
import re
import struct
from pathlib import Path

from PIL import Image

from benchmarks import perf_analyzer

CONFIG = Path(__file__).parents[2] / "model_repository" / "image_edit" / "config.pbtxt"


def test_every_input_is_declared_by_the_model() -> None:
    declared = set(re.findall(r'name: "(\w+)"', CONFIG.read_text()))
    (request,) = perf_analyzer.input_data(size=64, steps=2)["data"]
    assert set(request) <= declared


def test_a_picture_follows_its_length() -> None:
    (request,) = perf_analyzer.input_data(size=64, steps=2)["data"]
    element = base64.b64decode(request["IMAGE"]["content"]["b64"])
    (length,) = struct.unpack_from("<I", element)
    assert length == len(element) - 4
    assert Image.open(io.BytesIO(element[4:])).size == (64, 64)
