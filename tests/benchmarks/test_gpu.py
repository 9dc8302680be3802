"""The command for an hour with a GPU: what a failure, a deadline and a budget cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from benchmarks.gpu import machine, runner
from benchmarks.gpu.command import BUDGET_S, MEASUREMENTS, USUAL, main
from benchmarks.gpu.mask_network import MaskNetwork, load
from benchmarks.gpu.runner import Measurement, run_all
from benchmarks.gpu_table import NOTHING, table
from export.demo_masks.release import onnx_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]


def measurement(name: str, run: Callable[[], dict[str, Any]], seconds: float = 10.0) -> Measurement:
    return Measurement(name, seconds, "a test", (1, 3), run)


def fine() -> dict[str, Any]:
    return {"ms": 1.5, "summary": ["1.5 ms"]}


def broken() -> dict[str, Any]:
    raise RuntimeError("no kernel image is available")


def endless() -> dict[str, Any]:
    while True:
        time.sleep(0.001)


def measure(
    folder: Path,
    measurements: list[Measurement],
    arguments: Sequence[str] = (),
    go_on: Callable[[Sequence[str], float], None] = lambda _rest, _left: None,
) -> bool:
    return run_all(measurements, budget=100, out=folder, arguments=arguments, go_on=go_on)


def reports(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return {report["measurement"]: report for report in found}


def test_a_failure_costs_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [measurement("first", broken), measurement("second", fine)]
    assert not measure(tmp_path, chosen, arguments=["--budget", "100"])
    found = reports(tmp_path)
    assert "no kernel image is available" in found["first"]["error"]
    assert found["second"]["results"] == fine()
    assert found["second"]["answers"] == [1, 3]
    assert found["second"]["command"] == "python -m benchmarks gpu --budget 100"
    printed = capsys.readouterr().out
    assert "first: RuntimeError: no kernel image is available" in printed
    assert "second: measured" in printed
    assert "lines 1, 3" in printed


def test_what_is_not_installed_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "PACKAGES", ("torch", "no-such-package"))
    assert measure(tmp_path, [measurement("first", fine)])
    assert capsys.readouterr().out.startswith("not installed: no-such-package\nfirst ...")


def test_a_lost_device_needs_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[tuple[Sequence[str], float]] = []
    monkeypatch.setattr(machine, "lost", lambda: True)
    chosen = [measurement(name, fine) for name in ("first", "third", "fourth")]
    chosen.insert(1, measurement("second", broken))
    assert not measure(tmp_path, chosen, go_on=lambda rest, seconds: left.append((rest, seconds)))
    [(rest, seconds)] = left
    assert rest == ["third", "fourth"]
    assert 0 < seconds < 100
    assert set(reports(tmp_path)) == {"first", "second"}


def test_a_deadline_costs_one_result(tmp_path: Path) -> None:
    chosen = [measurement("first", endless, seconds=0.05), measurement("second", fine)]
    assert not measure(tmp_path, chosen)
    found = reports(tmp_path)
    assert "took longer than 0 s" in found["first"]["error"]
    assert "results" in found["second"]


def test_the_budget_leaves_out_what_comes_last(tmp_path: Path) -> None:
    chosen = [measurement("first", fine), measurement("second", fine, seconds=300)]
    assert not measure(tmp_path, chosen)
    found = reports(tmp_path)
    assert "results" in found["first"]
    assert found["second"]["error"].startswith("left out")


def test_the_table_has_the_newest_of_each(tmp_path: Path) -> None:
    assert table(tmp_path) == NOTHING
    measure(tmp_path, [measurement("first", broken)])
    [old] = tmp_path.glob("*.json")
    old.rename(tmp_path / "2020-01-01-first.json")
    chosen = [measurement("first", fine), measurement("second", broken)]
    measure(tmp_path, chosen)
    rows = table(tmp_path).splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| first | ")
    assert rows[2].endswith(" | 1.5 ms |")
    assert rows[3].endswith(" | RuntimeError: no kernel image is available |")


def test_the_expected_times_fit_the_budget() -> None:
    assert sum(each.seconds for each in MEASUREMENTS if each.name in USUAL) <= BUDGET_S
    assert all(each.seconds <= BUDGET_S for each in MEASUREMENTS)
    assert len({each.name for each in MEASUREMENTS}) == len(MEASUREMENTS) == 13


def test_every_line_of_the_list_but_interleaving_is_answered() -> None:
    assert {line for each in MEASUREMENTS for line in each.answers} == {1, 2, 3, 4, 6}


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    with pytest.raises(SystemExit):
        main([])
    assert "there is no GPU that torch can use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [(["tea"], "there is no tea; there are versions, "), (["--dry-run"], "needs an --out")],
)
def test_bad_arguments_are_named(
    arguments: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert refusal in capsys.readouterr().err


def dry_run(out: Path, *names: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--dry-run", "--out", str(out), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return reports(out)


@pytest.mark.slow
def test_a_dry_run_measures_kernels_and_the_vae(tmp_path: Path) -> None:
    found = dry_run(tmp_path, "versions", "multiplications", "vae")
    assert set(found) == {"versions", "multiplications", "vae"}
    assert set(found["vae"]["results"]["sides"]["32"]["decode"]) == {
        "diffusers", "no_feature_cache", "served", "channels_last", "tiles",
    }  # fmt: skip
    errors = found["multiplications"]["results"]["heights"]["7"]
    assert errors["bf16"]["error"] < errors["int8"]["error"] < errors["fp8"]["error"] < 0.06


def test_the_mask_network_in_pytorch_is_the_served_one() -> None:
    path = ROOT / "export" / "demo_masks" / "weights" / "network.onnx"
    network = MaskNetwork("demo").eval()
    load(network, path)
    images = np.random.default_rng(0).random((2, 3, 320, 320), np.float32)
    served = onnx_network(onnx.load(path))
    with torch.inference_mode():
        found = network(torch.from_numpy(images))
    # Pixels, scores, coefficients; then prototypes.
    for expected, own, off in zip(served(images), found, (1e-2, 1e-4), strict=True):
        assert np.abs(expected - own.numpy()).max() < off


@pytest.mark.parametrize(("name", "millions"), [("FastSAM-s", 11.8), ("FastSAM-x", 71.7)])
def test_the_mask_networks_are_as_large_as_fastsam_s(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = MaskNetwork(name)
    count = sum(weight.numel() for weight in network.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dry_run_measures_everything(tmp_path: Path) -> None:
    found = dry_run(tmp_path)
    assert set(found) == set(USUAL)
    compiled = found["compiled-steps"]["results"]
    # One for each adapter, whatever the length.
    assert compiled["graphs_after_other_lengths"] <= compiled["graphs"] + 1
    assert found["fp8-steps"]["results"]["distance"] < 0.2
    assert found["out-of-memory"]["results"]["settings"]["as_is"]["went_on"]
    [whole] = found["whole-edits"]["results"]["jobs"].values()
    assert whole["largest_difference"] <= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dry_run_measures_masks_and_the_server(tmp_path: Path) -> None:
    found = dry_run(tmp_path, "masks", "server")
    assert found["masks"]["results"]["float16_masks"]["min"] > 0.98
    assert found["server"]["results"]["ms"]["steps_received"] == 1
