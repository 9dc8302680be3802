"""Owns the way to edit_conditions: what training sees is built by the code that serves."""

import sys
from pathlib import Path

# As Triton does it for the model; at the end, so that an installed package wins there and here.
sys.path.append(str(Path(__file__).parents[1] / "model_repository" / "edit_conditions" / "1"))

from condition_fill import telea
from condition_flows import Conditions, build_conditions
from condition_masks import dilate, object_box
from condition_prompt import compose_prompt
from condition_quality import InputQuality
from condition_request import EditRequest, MaskTool
from condition_task import Task

__all__ = [
    "Conditions",
    "EditRequest",
    "InputQuality",
    "MaskTool",
    "Task",
    "build_conditions",
    "compose_prompt",
    "dilate",
    "object_box",
    "telea",
]
