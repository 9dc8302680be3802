from __future__ import annotations

import json

import pytest

from frontend.domain.edits import EditParams, EditProgress, EditResult, Stage
from frontend.domain.models import EditModelState
from frontend.errors import BackendError
from frontend.triton import edit_tensors
from tests.fakes.triton_server import response
from tests.fakes.wire import decode


def test_an_edit_is_sent_with_all_it_says() -> None:
    params = EditParams(
        prompt="gỡ cái cốc",
        image=b"\x00image",
        conditional_images=(b"mask", b""),
        task_type="removal",
        num_inference_steps=100,
        true_cfg_scale=2.5,
        seed=2**63 - 1,
        enable_flowmatch_scheduler=False,
        preview=True,
    )
    request = edit_tensors.edit_request("id", params)
    assert (request.model_name, request.id) == ("image_edit", "id")
    assert decode(request.inputs, request.raw_input_contents) == {
        "PROMPT": ["gỡ cái cốc".encode()],
        "IMAGE": [b"\x00image"],
        "CONDITIONAL_IMAGE_0": [b"mask"],
        "CONDITIONAL_IMAGE_1": [b""],
        "TASK_TYPE": [b"removal"],
        "NUM_INFERENCE_STEPS": [100],
        "TRUE_CFG_SCALE": [2.5],
        "SEED": [2**63 - 1],
        "ENABLE_FLOWMATCH_SCHEDULER": [False],
        "PREVIEW": [True],
    }


@pytest.mark.parametrize("task_id", ["", "some-id"])
def test_a_cancel_carries_nothing_else(task_id: str) -> None:
    request = edit_tensors.cancel_request(task_id)
    inputs = decode(request.inputs, request.raw_input_contents)
    assert inputs == {"CANCEL": [task_id.encode()]}


def test_a_response_is_progress_until_it_is_the_result() -> None:
    message = response("denoising", 3, 10, 0.3, PREVIEW_IMAGE=b"webp").infer_response
    assert edit_tensors.edit_update(message) == EditProgress(Stage.DENOISING, 3, 10, 0.3, b"webp")
    message = response("loading", 0, 10, 0.0).infer_response
    assert edit_tensors.edit_update(message) == EditProgress(Stage.LOADING, 0, 10, 0.0, b"")
    message = response("done", 10, 10, 1.0, IMAGE=b"png", INFO=b'{"a": 1}').infer_response
    assert edit_tensors.edit_update(message) == EditResult(b"png", b'{"a": 1}')


@pytest.mark.parametrize("broken", ["no image", "no info", "stage", "empty", "cut", "info"])
def test_a_broken_response_is_one_clear_error(broken: str) -> None:
    message = response("done", 1, 1, 1.0, IMAGE=b"png", INFO=b'{"a": 1}').infer_response
    match broken:
        case "no image":
            message = response("done", 1, 1, 1.0, INFO=b'{"a": 1}').infer_response
        case "no info":
            message = response("done", 1, 1, 1.0, IMAGE=b"png").infer_response
        case "stage":
            message = response("dreaming", 1, 1, 1.0).infer_response
        case "empty":  # what numpy 2 makes of every tensor in Triton 2.51
            message.raw_output_contents[:] = [b""] * len(message.outputs)
        case "cut":
            message.raw_output_contents[0] = message.raw_output_contents[0][:-1]
        case "info":
            message = response("done", 1, 1, 1.0, IMAGE=b"png", INFO=b"[]").infer_response
    with pytest.raises(BackendError, match="Triton's answer to an edit is not readable"):
        edit_tensors.edit_update(message)


def test_a_ping_tells_what_the_model_can() -> None:
    info = {
        "cancelled": True,
        "model": "demo",
        "adapters": ["removal"],
        "waiting": 1,
        "running": 2,
        "max_queue_size": 8,
        "image_area": 262144,
        "running_id": "a",
        "quiet_seconds": 0.5,
    }
    message = response("done", 0, 0, 1.0, INFO=json.dumps(info).encode()).infer_response
    state = EditModelState(
        cancelled=True,
        bundle="demo",
        adapters=frozenset({"removal"}),
        waiting=1,
        running=2,
        max_queue_size=8,
        image_area=262144,
        running_id="a",
        quiet_seconds=0.5,
    )
    assert edit_tensors.model_state(message) == state


@pytest.mark.parametrize("info", [b"", b"{", b"{}", b"null", b'{"cancelled": 1, "model": "m"}'])
def test_a_broken_ping_is_one_clear_error(info: bytes) -> None:
    message = response("done", 0, 0, 1.0, INFO=info).infer_response
    with pytest.raises(BackendError, match="Triton's answer to a ping is not readable"):
        edit_tensors.model_state(message)
