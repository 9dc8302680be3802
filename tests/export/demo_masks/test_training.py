"""Training repeats by its seed, continues after a kill with the same result, and learns."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.demo_masks import training as mask_training
from export.demo_masks.dataset import ScenePool, _draw_shard
from export.demo_masks.training import CHECKPOINT, Step, TrainingPlan, train
from export.errors import ExportError

PLAN = TrainingPlan(seed=5, scenes=4, batch=2, iterations=6, minutes=None)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    _draw_shard((5_000_000, 4, folder / "5-5000000.npy"))
    return folder


@pytest.fixture(scope="module")
def pool(scenes: Path) -> ScenePool:
    return ScenePool(list(scenes.iterdir()))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_training, "SIZES", ((0.5, 64), (1.0, 96)))


class KilledError(Exception):
    """Stands in for a signal at a moment of the test's choice."""


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.flatten().double() for weight in network.state_dict().values()])


@pytest.fixture(scope="module")
def whole(pool: ScenePool, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_training, "SIZES", ((0.5, 64), (1.0, 96)))
        trained = train(PLAN, pool, tmp_path_factory.mktemp("whole"), "cpu", lambda step: None)
    assert trained.iterations == 6
    return weights(trained.network)


def test_a_run_repeats_by_its_seed(pool: ScenePool, whole: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = train(PLAN, pool, tmp_path, "cpu", lambda step: None)
    assert torch.equal(weights(again.network), whole)


def test_another_seed_is_another_run(pool: ScenePool, whole: torch.Tensor, tmp_path: Path) -> None:
    other = train(replace(PLAN, seed=6), pool, tmp_path, "cpu", lambda step: None)
    assert not torch.allclose(weights(other.network), whole)


def test_a_stopped_run_goes_on_from_its_checkpoint(
    pool: ScenePool, whole: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_training, "CHECKPOINT_SECONDS", 0.0)

    def stop(step: Step) -> None:
        if step.iteration == 4:  # after the checkpoint of the third
            raise KilledError

    with pytest.raises(KilledError):
        train(PLAN, pool, tmp_path, "cpu", stop)
    seen: list[int] = []
    resumed = train(PLAN, pool, tmp_path, "cpu", lambda step: seen.append(step.iteration))
    assert seen == [4, 5, 6]
    assert torch.equal(weights(resumed.network), whole)


def test_a_finished_run_is_not_run_again(pool: ScenePool, tmp_path: Path) -> None:
    first = train(replace(PLAN, iterations=2), pool, tmp_path, "cpu", lambda step: None)
    again = train(
        replace(PLAN, iterations=2), pool, tmp_path, "cpu", lambda step: pytest.fail("trained")
    )
    assert torch.equal(weights(again.network), weights(first.network))
    assert again.seconds == first.seconds


def test_the_checkpoint_of_another_plan_is_refused(pool: ScenePool, tmp_path: Path) -> None:
    train(replace(PLAN, iterations=1), pool, tmp_path, "cpu", lambda step: None)
    with pytest.raises(ExportError, match="another training"):
        train(PLAN, pool, tmp_path, "cpu", lambda step: None)


RUN = """
import sys
from pathlib import Path
from export.demo_masks import training
from export.demo_masks.dataset import ScenePool
training.SIZES = ((1.0, 64),)
training.CHECKPOINT_SECONDS = 0.0
pool = ScenePool(list(Path(sys.argv[1]).iterdir()))
plan = training.TrainingPlan(seed=5, scenes=4, batch=2, iterations=1000, minutes=None)
training.train(plan, pool, Path(sys.argv[2]), "cpu", lambda step: None)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_checkpoint_that_opens(scenes: Path, tmp_path: Path) -> None:
    running = subprocess.Popen([sys.executable, "-c", RUN, str(scenes), str(tmp_path)])
    checkpoint = tmp_path / CHECKPOINT
    deadline = time.monotonic() + 150
    while not checkpoint.exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGKILL)
    running.wait()
    state = torch.load(checkpoint, weights_only=True)
    assert state["iteration"] >= 1
    assert state["seconds"] > 0


def test_images_grow_and_every_loss_is_reported(pool: ScenePool, tmp_path: Path) -> None:
    steps: list[Step] = []
    train(PLAN, pool, tmp_path, "cpu", steps.append)
    assert [(step.iteration, step.size) for step in steps] == [
        (1, 64),
        (2, 64),
        (3, 64),
        (4, 64),
        (5, 96),
        (6, 96),
    ]
    assert [step.fraction for step in steps] == pytest.approx([n / 6 for n in range(1, 7)])
    assert {"box_loss", "seg_loss", "cls_loss", "dfl_loss"} <= steps[-1].losses.keys()
    assert steps[-1].seconds > steps[0].seconds > 0


def test_every_trained_weight_moves(pool: ScenePool, tmp_path: Path) -> None:
    states: list[dict[str, torch.Tensor]] = []
    for iterations in (1, 3):
        folder = tmp_path / str(iterations)
        folder.mkdir()
        train(replace(PLAN, iterations=iterations), pool, folder, "cpu", lambda step: None)
        states.append(torch.load(folder / CHECKPOINT, weights_only=True)["network"])
    still = {name for name, value in states[0].items() if torch.equal(value, states[1][name])}
    # `dfl` is fixed, and `cv2.2` draws boxes of objects larger than these pictures.
    assert all(".dfl." in name or ".cv2.2." in name for name in still)


@pytest.mark.parametrize(
    ("iterations", "minutes", "fraction"),
    [(10, None, 0.5), (None, 2.0, 0.25), (10, 2.0, 0.5), (100, 2.0, 0.25), (3, None, 1.0)],
)
def test_whichever_bound_comes_first_ends_the_training(
    iterations: int | None, minutes: float | None, fraction: float
) -> None:
    plan = replace(PLAN, iterations=iterations, minutes=minutes)
    assert plan.fraction_done(iteration=5, seconds=30.0) == fraction


def test_a_plan_needs_an_end() -> None:
    with pytest.raises(ValueError, match="iterations or minutes"):
        TrainingPlan(seed=1, scenes=4, batch=2, iterations=None, minutes=None)


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [mask_training._learning_rate(step, step / 1000) for step in range(1001)]
    top = max(rates)
    assert rates.index(top) == pytest.approx(100, abs=1)
    assert rates[0] == pytest.approx(top / 100, rel=0.05)
    assert rates[-1] == pytest.approx(0.01 * mask_training.LEARNING_RATE)
    assert rates[100:] == sorted(rates[100:], reverse=True)
