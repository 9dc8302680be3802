from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from frontend.domain.edits import EditParams
from frontend.domain.masks import MaskPrompts
from frontend.http.schemas.edits import GenerationRequest
from frontend.http.schemas.masks import MAX_BORDER, MAX_POINTS, SmartMaskRequest
from frontend.pictures.workers import MAX_EDIT_BYTES
from frontend.settings import Settings
from frontend.triton.edit_tensors import CONDITIONAL_IMAGES, EDIT_INPUTS, IMAGE_EDIT
from frontend.triton.mask_tensors import PROMPT_INPUTS, SMART_MASK
from frontend.triton.tensors import ModelTensors, mismatches
from image_edit.conditions import DEBUG_OUTPUT, OUTPUTS
from image_edit.request import CONDITION_INPUTS
from model_kit import raster
from model_kit.tensors import MAX_TEXT_BYTES
from smart_mask import finish as mask_finish
from smart_mask import request as mask_request
from tests.fakes.wire import model_config

MODELS = Path(__file__).parents[2] / "model_repository"
TABLES = [IMAGE_EDIT, SMART_MASK]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.model)
def test_every_profile_has_the_tensors_of_the_frontend(table: ModelTensors) -> None:
    profiles = sorted((MODELS / table.model).glob("**/*.pbtxt"))
    assert len(profiles) >= 2
    for path in profiles:
        assert mismatches(table, model_config(str(path.relative_to(MODELS)))) == [], path


def test_every_profile_is_a_model_configuration_with_the_same_parameters() -> None:
    for model in sorted(path for path in MODELS.iterdir() if (path / "config.pbtxt").exists()):
        default = model_config(f"{model.name}/config.pbtxt")
        for path in model.glob("configs/*.pbtxt"):
            variant = model_config(str(path.relative_to(MODELS)))
            assert variant.name == default.name == model.name
            if variant.backend == default.backend:
                assert variant.parameters.keys() == default.parameters.keys(), path


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.model)
def test_the_frontend_knows_every_tensor(table: ModelTensors) -> None:
    config = model_config(f"{table.model}/config.pbtxt")
    assert {tensor.name for tensor in config.input} == {spec.name for spec in table.inputs}
    assert {tensor.name for tensor in config.output} == {spec.name for spec in table.outputs}


def test_image_edit_knows_every_tensor_of_edit_conditions() -> None:
    config = model_config("edit_conditions/config.pbtxt")
    assert [tensor.name for tensor in config.output] == [*OUTPUTS, DEBUG_OUTPUT]
    # Both sizes are the client's, the area is the bundle's.
    passed = CONDITION_INPUTS | {"WIDTH", "HEIGHT", "IMAGE_AREA"}
    assert {tensor.name for tensor in config.input} == passed
    # Any of them can be absent, so that the model can refuse by name.
    assert all(tensor.optional for tensor in config.input)


def test_what_image_edit_hands_on_is_of_the_same_type_in_both_models() -> None:
    taken = {tensor.name: tensor for tensor in model_config("edit_conditions/config.pbtxt").input}
    sent = {tensor.name: tensor for tensor in model_config().input}
    for name in taken.keys() & sent.keys():
        assert taken[name].data_type == sent[name].data_type, name
        assert list(taken[name].dims) == list(sent[name].dims), name
    assert taken.keys() - sent.keys() == {"IMAGE_AREA"}


def test_every_input_is_one_field_of_an_edit() -> None:
    names = {re.sub(r"_IMAGE_\d$", "_IMAGES", spec.name) for spec in EDIT_INPUTS}
    assert names == {field.name.upper() for field in fields(EditParams)}


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/**/*.pbtxt")), ids=str)
def test_no_client_chooses_how_many_texts_or_files_it_sends(path: Path) -> None:
    # Triton copies all elements, and Python makes an object of each, before a model can look.
    for tensor in model_config(str(path.relative_to(MODELS))).input:
        if tensor.data_type == model_config_pb2.TYPE_STRING:
            assert list(tensor.dims) == [1], tensor.name


def test_every_prompt_is_one_field_of_a_mask_request() -> None:
    names = {spec.name for spec in PROMPT_INPUTS}
    assert names == {field.name.upper() for field in fields(MaskPrompts)}
    fields_of_no_tensor = {"image", "image_id", "request_id", "model_type"}
    assert {name.lower() for name in names} == (
        SmartMaskRequest.model_fields.keys() - fields_of_no_tensor
    )


def test_every_field_of_an_edit_can_be_requested() -> None:
    requested = {name.removeprefix("input_") for name in GenerationRequest.model_fields}
    requested = {"input_quality" if name == "quality" else name for name in requested} - {"retry"}
    # Whether a lost job is begun anew is no matter of the edit.
    assert requested == {field.name for field in fields(EditParams)}


def test_the_frontend_lets_in_what_the_model_takes() -> None:
    parameters = model_config("edit_conditions/config.pbtxt").parameters
    settings = Settings()
    assert settings.max_image_pixels == int(parameters["MAX_IMAGE_PIXELS"].string_value)
    assert settings.max_conditional_images == len(CONDITIONAL_IMAGES)


def head() -> bytes:
    """The head of plain pixels."""
    return bytes(raster.write(np.zeros((1, 1), np.uint8))[0])


@pytest.mark.parametrize(
    "profile",
    ["config.pbtxt", "configs/cpu.pbtxt", "configs/a100-40gb.pbtxt", "configs/h100.pbtxt"],
)
def test_no_edit_is_refused_for_its_size(profile: str) -> None:
    parameters = model_config(f"image_edit/{profile}").parameters
    most_bytes = int(parameters["MAX_REQUEST_BYTES"].string_value)
    texts = sum(spec.datatype == "BYTES" for spec in EDIT_INPUTS) * MAX_TEXT_BYTES
    assert MAX_EDIT_BYTES + texts <= most_bytes
    # A picture with transparency and a mask, both as large as one may be.
    assert Settings().max_image_pixels * (4 + 1) + 2 * len(head()) <= MAX_EDIT_BYTES


@pytest.mark.parametrize("profile", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_no_mask_request_is_refused_for_its_size_or_number(profile: str) -> None:
    parameters = model_config(f"smart_mask/{profile}").parameters
    settings = Settings()
    # A picture and a mask as plain pixels.
    most_bytes = int(parameters["MAX_REQUEST_BYTES"].string_value)
    assert settings.max_mask_pixels * (3 + 1) + 2 * len(head()) <= most_bytes
    places = sum(int(parameters[name].string_value) for name in ("WORKERS", "MAX_QUEUE_SIZE"))
    assert settings.max_masks_in_flight <= places


def test_frontend_and_model_bound_prompts_alike() -> None:
    assert (MAX_POINTS, MAX_BORDER) == (mask_request.MAX_POINTS, mask_finish.MAX_BORDER)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("drop input", "input PROMPT TYPE_STRING [1] is missing"),
        ("drop output", "output STAGE TYPE_STRING [1] is missing"),
        ("retype", "input PROMPT TYPE_STRING [1] is TYPE_INT32 [1]"),
        ("reshape", "input PROMPT TYPE_STRING [1] is TYPE_STRING [-1]"),
        ("require", "input PROMPT TYPE_STRING [1] is not optional"),
        ("add required", "input NEW is required"),
        ("coupled", "the model is not decoupled"),
    ],
)
def test_a_difference_is_found_and_named(change: str, found: str) -> None:
    config = model_config()
    first = config.input[0]
    match change:
        case "drop input":
            del config.input[0]
        case "drop output":
            del config.output[0]
        case "retype":
            first.data_type = next(i for i in config.input if i.name == "WIDTH").data_type
        case "reshape":
            first.dims[:] = [-1]
        case "require":
            first.optional = False
        case "add required":
            config.input.add(name="NEW")
        case "coupled":
            config.model_transaction_policy.decoupled = False
    assert mismatches(IMAGE_EDIT, config) == [found]


def test_a_decoupled_model_is_not_the_promised_smart_mask() -> None:
    config = model_config("smart_mask/config.pbtxt")
    config.model_transaction_policy.decoupled = True
    assert mismatches(SMART_MASK, config) == ["the model is decoupled"]


def test_a_shape_of_two_dimensions_is_compared() -> None:
    config = model_config("smart_mask/config.pbtxt")
    next(tensor for tensor in config.input if tensor.name == "POINTS").dims[:] = [-1, 3]
    assert mismatches(SMART_MASK, config) == ["input POINTS TYPE_FP32 [-1, 2] is TYPE_FP32 [-1, 3]"]


def test_a_new_optional_input_is_no_difference() -> None:
    config = model_config()
    config.input.add(name="NEW", optional=True)
    assert mismatches(IMAGE_EDIT, config) == []
