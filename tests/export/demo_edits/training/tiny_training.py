"""Owns a recipe that trains in seconds and teaches nothing, for the tests of the machinery."""

import pytest
import torch
from torch.optim import _muon

from export.demo_edits.training import vae_start
from export.demo_edits.training.fitting import FitPlan
from export.demo_edits.training.flow import Course, Emphasis, TrainingStage
from export.demo_edits.training.pool import Portion
from export.demo_edits.training.recipe import AdapterRecipe, Recipe
from export.serving_code import Task

COURSES = (Course(0.5, 32, 2), Course(1.0, 64, 1))
STAGES = (
    TrainingStage(FitPlan(2, 1e-2), COURSES),
    TrainingStage(FitPlan(2, 1e-2), COURSES, Emphasis(0.5, 0.5)),
)
PORTIONS = (Portion(32, 2), Portion(64, 1))
RECIPE = Recipe(
    seed=3,
    vae_samples=20,
    portions=PORTIONS,
    vae=FitPlan(2, 1e-4),
    base=FitPlan(2, 1e-3),
    base_courses=COURSES,
    adapters={task: AdapterRecipe(STAGES, PORTIONS) for task in Task},
)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Do less where the network's real size makes even a tiny training long.

    Muon makes each gradient orthogonal, which takes half a second for each of the matrices.
    """
    patch.setattr(vae_start, "SAMPLES", 3000)
    patch.setattr(_muon, "_zeropower_via_newtonschulz", _normalised)


def _normalised(gradient: torch.Tensor, *_: object) -> torch.Tensor:
    normalised: torch.Tensor = gradient / gradient.norm().clamp(min=1e-7)
    return normalised
