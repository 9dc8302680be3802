from __future__ import annotations

from dataclasses import fields

import pytest

from frontend.domain import EditParams
from frontend.schemas import GenerationRequest
from frontend.settings import Settings
from frontend.triton.tensors import EDIT_INPUTS, mismatches
from tests.fakes.triton_server import model_config

PROFILES = ["image_edit/config.pbtxt", "image_edit/configs/cpu.pbtxt"]


@pytest.mark.parametrize("path", PROFILES)
def test_every_profile_has_the_tensors_of_the_frontend(path: str) -> None:
    assert mismatches(model_config(path)) == []


def test_every_input_but_cancel_is_one_field_of_an_edit() -> None:
    names = {tensor.name for tensor in model_config().input} - {"CANCEL"}
    assert names == {spec.name for spec in EDIT_INPUTS}
    assert names == {field.name.upper() for field in fields(EditParams)}


def test_every_field_of_an_edit_can_be_requested() -> None:
    requested = {name.removeprefix("input_") for name in GenerationRequest.model_fields}
    requested = {"input_quality" if name == "quality" else name for name in requested}
    assert requested == {field.name for field in fields(EditParams)}


def test_the_frontend_lets_in_what_the_model_takes() -> None:
    parameters = model_config("edit_conditions/config.pbtxt").parameters
    settings = Settings()
    assert settings.max_image_pixels == int(parameters["MAX_IMAGE_PIXELS"].string_value)
    most = int(parameters["MAX_CONDITIONAL_IMAGES"].string_value)
    assert settings.max_conditional_images == most


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
    assert mismatches(config) == [found]


def test_a_new_optional_input_is_no_difference() -> None:
    config = model_config()
    config.input.add(name="NEW", optional=True)
    assert mismatches(config) == []
