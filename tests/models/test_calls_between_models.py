"""Every call of one model by another, against a Triton that leaves outputs on the GPU."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.pb_utils import FakeTriton, load_model
from tests.models.image_edit.edits import request_of

REPOSITORY = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def model(request: pytest.FixtureRequest, triton: FakeTriton) -> Any:
    yield from load_model(REPOSITORY / request.param / "1" / "model.py", triton)


@pytest.mark.parametrize("model", ["smart_mask"], indirect=True)
def test_smart_mask_reads_what_fastsam_answers(model: Any, triton: FakeTriton) -> None:
    predictions = np.arange(37 * 9, dtype=np.float32).reshape(1, 37, 9)
    prototypes = np.arange(32 * 4, dtype=np.float32).reshape(1, 32, 2, 2)
    triton.outputs["fastsam"] = {"output0": predictions, "output1": prototypes}
    image = np.ones((1, 3, 8, 8), np.float32)
    found = model._infer(image)
    assert [name for name, _ in triton.calls] == ["fastsam"]
    assert np.array_equal(triton.calls[0][1]["images"], image)
    assert np.array_equal(found[0], predictions[0])
    assert np.array_equal(found[1], prototypes[0])


@pytest.mark.parametrize("model", ["image_edit"], indirect=True)
def test_image_edit_reads_what_edit_conditions_answers(model: Any, triton: FakeTriton) -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(1, 2, 4, 4, 3)
    mask = images[0, 0, :, :, 0]
    triton.outputs["edit_conditions"] = {
        "CONDITIONS": images,
        "PICTURE": images[0, 0],
        "REGIONS": np.array([[0, 0, 4, 4]], np.int32),
        "CONTENT": np.array([[4, 4]], np.int32),
        "PASTE_MASKS": mask.ravel(),
        "COMPOSITED": np.array([True]),
        "IN_PLACE": np.array([False]),
        "SIZE": np.array([300, 4], np.int32),
        "PROMPT": np.array([b"remove it"], np.object_),
        "TASK_TYPE": np.array([b"removal"], np.object_),
        "DEBUG_INFO": np.array([b'{"mask_A": "abc"}'], np.object_),
    }
    found = model._conditions(request_of(WIDTH=300), 1024)
    assert [name for name, _ in triton.calls] == ["edit_conditions"]
    sent = triton.calls[0][1]
    assert (sent["WIDTH"].tolist(), sent["IMAGE_AREA"].tolist()) == ([300], [1024])
    [region] = found.regions
    assert np.array_equal(region.images, images[0])
    assert np.array_equal(region.paste_mask, mask)
    assert np.array_equal(found.picture, images[0, 0])
    assert found.size == (300, 4)
    assert (found.prompt, found.task_type) == ("remove it", "removal")
    assert found.debug_info == {"mask_A": "abc"}
    assert model._conditions(request_of(DEBUG=False), 1024).debug_info is None


def test_every_call_of_a_model_asks_for_its_outputs_on_the_host() -> None:
    called = []
    for path in REPOSITORY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "InferenceRequest"
            ):
                keywords = {each.arg: each.value for each in node.keywords}
                assert "TRITONSERVER_MEMORY_CPU" in ast.dump(keywords["preferred_memory"]), path
                called.append(ast.literal_eval(keywords["model_name"]))
    # A call that is not among them has no test above.
    assert sorted(called) == ["edit_conditions", "fastsam"]


def test_no_model_is_handed_its_inputs_on_the_gpu() -> None:
    # Triton moves a Python model's inputs to the host unless this parameter says "no".
    configs = list(REPOSITORY.rglob("*.pbtxt"))
    assert configs
    for config in configs:
        assert "FORCE_CPU_ONLY_INPUT_TENSORS" not in config.read_text(encoding="utf-8"), config
