"""The whole training, tiny: it survives a kill, and the server loads its bundle."""

import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import manifest
from export.demo_edits import bundle as demo_bundle
from export.demo_edits import release as demo_release
from export.demo_edits.results import Editor, held_out, scores
from export.demo_edits.samples import Flow
from export.demo_edits.training import recipe as demo_training
from export.demo_edits.training.recipe import Trained, train
from export.errors import ExportError
from export.serving_code import Task

from .tiny_training import RECIPE, make_quick

PHASES = ["pictures", "vae", "samples", "base", "insertion", "removal", "white-balance"]
CHILD = """
from pathlib import Path
import pytest
from export.demo_edits.training import fitting, recipe
from tests.export.demo_edits.training.tiny_training import RECIPE, make_quick
make_quick(pytest.MonkeyPatch())
fitting.CHECKPOINT_SECONDS = 0
recipe.train(RECIPE, Path({workspace!r}), "cpu", lambda *report: None)
"""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        make_quick(patch)
        yield


def run(workspace: Path) -> tuple[Trained, list[tuple[str, float, str]]]:
    reports: list[tuple[str, float, str]] = []
    trained = train(RECIPE, workspace, "cpu", lambda *report: reports.append(report))
    return trained, reports


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, list[tuple[str, float, str]]]:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def bundle(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "demo"
    demo_release.release(whole[0], RECIPE, folder)
    return folder


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    found = {f"adapter.{task}.{name}": weight for task, adapter in trained.adapters.items()
             for name, weight in adapter.items()}  # fmt: skip
    for part in ("vae", "transformer", "text_encoder"):
        for name, weight in getattr(trained.pipeline, part).state_dict().items():
            found[f"{part}.{name}"] = weight.half()
    return found


@pytest.mark.slow
def test_every_phase_is_reported_to_its_end(whole: Any) -> None:
    _, reports = whole
    assert list(dict.fromkeys(phase for phase, _, _ in reports)) == PHASES
    for phase in PHASES[1:]:
        fractions = [fraction for found, fraction, _ in reports if found == phase]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


@pytest.mark.slow
def test_a_killed_training_ends_as_if_nothing_had_been(whole: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(workspace=str(workspace))],
        cwd=Path(__file__).parents[4],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while not (workspace / "base.pt").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    resumed, _ = run(workspace)
    expected = weights(whole[0])
    found = weights(resumed)
    assert found.keys() == expected.keys()
    assert [name for name, weight in found.items() if not torch.equal(weight, expected[name])] == []


def test_a_workspace_belongs_to_one_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("another")
    with pytest.raises(ExportError, match="another recipe"):
        run(tmp_path)


@pytest.mark.slow
def test_the_bundle_is_small_and_says_how_it_was_made(bundle: Path) -> None:
    found = manifest.verify(bundle)
    assert sum(path.stat().st_size for path in bundle.rglob("*")) < 40_000_000
    assert found["training"]["recipe"]["seed"] == RECIPE.seed
    assert set(found["training"]["minutes"]) == {"vae", "base", *manifest.ADAPTERS}
    assert found["training"]["photographs"]
    assert found["adapters"].keys() == manifest.ADAPTERS.keys()
    assert not demo_bundle.is_current(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("flow", Flow)
def test_serving_loads_the_bundle_and_edits(bundle: Path, flow: Flow) -> None:
    editor = Editor(bundle)
    sample = held_out(flow, 0, 64)
    picture = editor.edit(sample, steps=2)
    assert picture.shape == sample.truth.shape
    assert picture.dtype == np.uint8
    assert picture.std() > 1
    assert all(np.isfinite(value) or value > 0 for value in scores(sample, picture).values())
    np.testing.assert_array_equal(editor.edit(sample, steps=2), picture)
    other = "removal" if flow.task != "removal" else "white-balance"
    assert not np.array_equal(editor.edit(sample, steps=2, adapter=other), picture)
    assert not np.array_equal(editor.edit(sample, steps=2, order=(1, 0)), picture)


def test_held_out_scenes_repeat_and_are_not_training_s() -> None:
    first, again = held_out(Flow.REMOVAL, 3, 64), held_out(Flow.REMOVAL, 3, 64)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert not np.array_equal(first.truth, held_out(Flow.REMOVAL, 4, 64).truth)


def test_a_recipe_follows_its_length() -> None:
    whole, half = demo_training.recipe(0, 1.0), demo_training.recipe(0, 0.5)
    assert half.base.iterations * 2 == whole.base.iterations
    assert half.base.learning_rate == whole.base.learning_rate
    assert whole.adapters.keys() == set(Task)
    sizes = {portion.size for portion in whole.portions}
    assert {course.size for course in whole.base_courses} <= sizes
    assert whole.base_courses[-1].until == 1.0
    for adapter in whole.adapters.values():
        sizes = {portion.size for portion in adapter.portions}
        for stage in adapter.stages:
            assert {course.size for course in stage.courses} <= sizes
            assert stage.courses[-1].until == 1.0
