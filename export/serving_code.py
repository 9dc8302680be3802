"""Owns the way to the code that serves edits: training and measuring use it, not a copy."""

from export import models_path  # noqa: F401

# isort: split

from condition_fill import telea
from condition_flows import Conditions, build_conditions
from condition_masks import dilate, object_box
from condition_prompt import compose_prompt
from condition_quality import InputQuality
from condition_request import EditRequest, MaskTool
from condition_task import Task
from edit_bundle import load_bundle
from edit_engine import EditEngine
from edit_positions import mark_picture_tokens
from edit_settings import Tuning
from edit_spec import EditSpec
from edit_tuning import torch_dtype

__all__ = [
    "Conditions",
    "EditEngine",
    "EditRequest",
    "EditSpec",
    "InputQuality",
    "MaskTool",
    "Task",
    "Tuning",
    "build_conditions",
    "compose_prompt",
    "dilate",
    "load_bundle",
    "mark_picture_tokens",
    "object_box",
    "telea",
    "torch_dtype",
]
