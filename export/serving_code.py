"""Owns the way to the code that serves edits: training and measuring use no copy of it."""

import sys
from pathlib import Path

# The models' modules have names that are unique across models, so one path serves all of them.
for _folder in sorted(Path(__file__).parents[1].glob("model_repository/*/1")):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

# isort: split

from edit_conditions.fill import telea
from edit_conditions.flows import Conditions, build_conditions
from edit_conditions.masks import dilate, object_box
from edit_conditions.prompt import compose_prompt
from edit_conditions.quality import InputQuality
from edit_conditions.request import EditRequest, MaskTool
from edit_conditions.task import Task
from image_edit.engine.bundle import load_bundle
from image_edit.engine.engine import EditEngine, EditState
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.tuning import torch_dtype
from image_edit.settings import Tuning
from image_edit.spec import EditSpec

__all__ = [
    "Conditions",
    "EditEngine",
    "EditRequest",
    "EditSpec",
    "EditState",
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
