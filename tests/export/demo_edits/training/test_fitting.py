"""A training learns, repeats, and continues after a kill with the same result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.demo_edits.training import fitting
from export.demo_edits.training.fitting import FitPlan, Step, fit
from export.errors import ExportError

PLAN = FitPlan(iterations=60, learning_rate=0.05)


class KilledError(Exception):
    """Stands in for a signal at a moment of the test's choice."""


def problem() -> tuple[nn.Linear, Callable[[int, float], Tensor]]:
    """Return a matrix and a vector to find, and how far a guess is from them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer, wanted = nn.Linear(6, 4), nn.Linear(6, 4).requires_grad_(False)

    def loss(iteration: int, fraction: float) -> Tensor:
        assert fraction == iteration / PLAN.iterations
        inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(iteration))
        missed: Tensor = layer(inputs) - wanted(inputs)
        return missed.square().mean()

    return layer, loss


def run(folder: Path, on_step: Callable[[Step], None] = lambda step: None) -> nn.Linear:
    layer, loss = problem()
    weights = dict(layer.named_parameters())
    fit(PLAN, weights, ["weight"], loss, folder / "checkpoint.pt", on_step)
    return layer


def test_the_loss_falls_and_is_reported(tmp_path: Path) -> None:
    steps: list[Step] = []
    layer = run(tmp_path, steps.append)
    assert [step.iteration for step in steps] == list(range(1, 61))
    assert {step.iterations for step in steps} == {60}
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    _, loss = problem()
    untrained = loss(0, 0.0).item()
    assert steps[0].loss == pytest.approx(untrained)
    assert not torch.equal(layer.weight, problem()[0].weight)
    assert not torch.equal(layer.bias, problem()[0].bias)
    assert steps[-1].loss < 0.8 * untrained


def test_a_run_repeats(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert torch.equal(run(tmp_path / "one").weight, run(tmp_path / "two").weight)


@pytest.mark.parametrize("killed_after", [1, 37])
def test_a_killed_run_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)

    def kill(step: Step) -> None:
        if step.iteration == killed_after + 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, kill)
    steps: list[Step] = []
    resumed = run(tmp_path, steps.append)
    assert steps[0].iteration == killed_after + 1
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)


def test_a_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    trained = run(tmp_path)
    steps: list[Step] = []
    again = run(tmp_path, steps.append)
    assert not steps
    assert torch.equal(again.weight, trained.weight)


def test_an_unfinished_checkpoint_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.part").write_bytes(b"half a file")
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_plan_or_other_weights_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    layer, loss = problem()
    weights: dict[str, nn.Parameter] = dict(layer.named_parameters())
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(ExportError, match="another training"):
        fit(FitPlan(70, 0.05), weights, (), loss, checkpoint, lambda step: None)
    with pytest.raises(ExportError, match="another training"):
        fit(PLAN, {"weight": weights["weight"]}, (), loss, checkpoint, lambda step: None)
