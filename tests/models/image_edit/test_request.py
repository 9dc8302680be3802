from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from image_edit.request import EditRequest, read_edit_request
from model_kit.errors import Code, CodedError

if TYPE_CHECKING:
    from model_kit.tensors import Tensors


def read(static_schedule: bool = False, max_bytes: int = 100, **inputs: Any) -> EditRequest:
    tensors = {name: [value] for name, value in inputs.items()}
    return read_edit_request(tensors, static_schedule=static_schedule, max_bytes=max_bytes)


def test_what_a_client_leaves_open() -> None:
    request = read(PROMPT=b"x", IMAGE=b"y")
    assert request.num_inference_steps == 10
    assert request.negative_prompt == " "
    assert request.width is request.height is None
    assert request.guidance_scale is request.true_cfg_scale is None
    assert request.static_schedule is False
    assert request.preview is False
    assert request.debug is True
    assert request.has_reference_image is False
    assert request.task_type == "removal"


@pytest.mark.parametrize(
    ("inputs", "task"),
    [
        ({"TASK_TYPE": b" white-balance "}, "white-balance"),
        ({"TASK_TYPE": b"  "}, "removal"),
        ({"REFERENCE_IMAGE": b"y"}, "insertion"),
        ({"REFERENCE_IMAGE": b""}, "removal"),
        ({"REFERENCE_IMAGE": b"y", "TASK_TYPE": b"removal"}, "removal"),
    ],
)
def test_the_task_is_what_edit_conditions_will_read(inputs: dict[str, Any], task: str) -> None:
    assert read(PROMPT=b"x", IMAGE=b"y", **inputs).task_type == task


def test_what_a_client_says() -> None:
    request = read(
        NEGATIVE_PROMPT="wörd".encode(),
        WIDTH=256,
        HEIGHT=2048,
        NUM_INFERENCE_STEPS=100,
        GUIDANCE_SCALE=20.0,
        TRUE_CFG_SCALE=0.5,
        SEED=2**63 - 1,
        ENABLE_FLOWMATCH_SCHEDULER=True,
        PREVIEW=True,
        DEBUG=False,
        REFERENCE_IMAGE=b"z",
        TASK_TYPE=b"white-balance",
    )
    assert request.negative_prompt == "wörd"
    assert (request.width, request.height) == (256, 2048)
    assert request.num_inference_steps == 100
    assert request.guidance_scale == 20.0
    assert request.true_cfg_scale == 0.5
    assert request.seed == 2**63 - 1
    assert request.static_schedule is True
    assert request.preview is True
    assert request.debug is False
    assert request.has_reference_image is True
    assert request.task_type == "white-balance"


@pytest.mark.parametrize("scale", [0.55, 3.3, 4.1, 14.999])
def test_a_scale_is_the_number_that_was_sent(scale: float) -> None:
    held = float(np.float32(scale))
    assert held != scale
    assert read(TRUE_CFG_SCALE=held, GUIDANCE_SCALE=held).true_cfg_scale == scale


def test_a_flag_overrides_the_configured_schedule_both_ways() -> None:
    assert read(static_schedule=True).static_schedule is True
    assert read(static_schedule=True, ENABLE_FLOWMATCH_SCHEDULER=False).static_schedule is False


def test_a_seed_is_drawn_anew_where_none_is_given() -> None:
    seeds = {read().seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_only_what_conditioning_reads_goes_to_it_and_all_of_it() -> None:
    tensors: Tensors = {
        "PROMPT": [b"x"],
        "CONDITIONAL_IMAGE_0": [b"a"],
        "CONDITIONAL_IMAGE_1": [b"b"],
        "TASK_TYPE": [b"\xff"],  # not this module's to judge
        "SEED": [1],
        "NEGATIVE_PROMPT": [b"n"],
    }
    request = read_edit_request(tensors, static_schedule=False, max_bytes=100)
    assert request.condition_inputs == {
        "PROMPT": [b"x"],
        "CONDITIONAL_IMAGE_0": [b"a"],
        "CONDITIONAL_IMAGE_1": [b"b"],
        "TASK_TYPE": [b"\xff"],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIDTH", 255),
        ("WIDTH", 2049),
        ("HEIGHT", 0),
        ("HEIGHT", -300),
        ("NUM_INFERENCE_STEPS", 0),
        ("NUM_INFERENCE_STEPS", 101),
        ("GUIDANCE_SCALE", 0.25),
        ("GUIDANCE_SCALE", 20.5),
        ("GUIDANCE_SCALE", float("inf")),
        ("TRUE_CFG_SCALE", 0.25),
        ("TRUE_CFG_SCALE", 15.5),
        ("TRUE_CFG_SCALE", float("nan")),
        ("SEED", -1),
        ("NEGATIVE_PROMPT", b"\xff"),
        ("NEGATIVE_PROMPT", b"x" * 40_000),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(CodedError, match=name) as caught:
        read(**{name: value}, max_bytes=100_000)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_all_inputs_together_are_bounded_and_the_largest_is_named() -> None:
    assert read(PROMPT=b"x" * 40, IMAGE=b"y" * 60).condition_inputs
    with pytest.raises(CodedError, match=r"IMAGE: .* 100 bytes"):
        read(PROMPT=b"x" * 40, IMAGE=b"y" * 61)
