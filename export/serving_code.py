"""Owns the way to the code that serves edits: training and measuring use no copy of it."""

import sys
from pathlib import Path

# The models' modules have names that are unique across models, so one path serves all of them.
for _folder in sorted(Path(__file__).parents[1].glob("model_repository/*/1")):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

# isort: split

from edit_conditions.fill import telea
from edit_conditions.flows import SceneConditions, build_conditions
from edit_conditions.masks import dilate, object_box
from edit_conditions.plan import Scene, plan
from edit_conditions.prompt import compose_prompt
from edit_conditions.quality import InputQuality
from edit_conditions.request import ConditionsRequest, MaskTool
from edit_conditions.task import Task
from image_edit.engine.bundle import load_bundle
from image_edit.engine.engine import EditEngine, EditState
from image_edit.engine.positions import mark_picture_tokens
from image_edit.engine.quantised import quantised_class
from image_edit.engine.text_encoder import drop_word_head
from image_edit.engine.tuning import torch_dtype
from image_edit.engine.vae import keep_to_pictures, work_on_tiles
from image_edit.settings import Tuning
from image_edit.spec import EditSpec
from model_kit.pictures import Picture

__all__ = [
    "ConditionsRequest",
    "EditEngine",
    "EditSpec",
    "EditState",
    "InputQuality",
    "MaskTool",
    "Picture",
    "Scene",
    "SceneConditions",
    "Task",
    "Tuning",
    "build_conditions",
    "compose_prompt",
    "dilate",
    "drop_word_head",
    "keep_to_pictures",
    "load_bundle",
    "mark_picture_tokens",
    "object_box",
    "plan",
    "quantised_class",
    "telea",
    "torch_dtype",
    "work_on_tiles",
]
