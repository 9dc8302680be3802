"""The full-size pipeline, measured without weights, is as large as its published files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from export.__main__ import app
from export.qwen import memory as qwen_memory
from export.qwen import published as qwen_published

ROOT = Path(__file__).parents[3]
IMAGE_EDIT = ROOT / "model_repository" / "image_edit"
GIB = 2**30
LARGEST = qwen_memory.EditSizes(side=2048, conditions=3, condition_side=1024)
SMALL = qwen_memory.EditSizes(side=256, conditions=1, condition_side=256)


@pytest.fixture(scope="module")
def sizes() -> qwen_memory.Sizes:
    return qwen_memory.measure_sizes()


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    return qwen_memory.build_components()


@pytest.mark.parametrize("component", qwen_published.FILE_BYTES)
def test_it_has_the_size_of_the_published_files(components: dict[str, Any], component: str) -> None:
    weights = 2 * sum(weight.numel() for weight in components[component].parameters())
    # Beyond the weights, the files hold the tensors' names and shapes.
    assert 0 < qwen_published.FILE_BYTES[component] - weights < 1e-4 * weights


def test_what_an_edit_never_computes_is_not_kept(sizes: qwen_memory.Sizes) -> None:
    published = qwen_published.FILE_BYTES
    words = 152064 * 3584
    assert 2 * (sizes.parameters["text_encoder"] + words) == pytest.approx(
        published["text_encoder"], rel=1e-4
    )
    assert 2 * sizes.parameters["vae"] < 0.4 * published["vae"]
    assert 2 * sizes.parameters["transformer"] == pytest.approx(published["transformer"], rel=1e-4)


def test_an_adapter_is_on_all_attention_projections(sizes: qwen_memory.Sizes) -> None:
    parameters, layers = sizes.lora
    assert layers == 60 * 7
    assert parameters == layers * 2 * 3072


@pytest.mark.parametrize(
    ("file", "usable"), [("config", 79), ("configs/a100-40gb", 39), ("configs/h100", 79)]
)
def test_the_largest_edit_fits_on_each_gpu(
    sizes: qwen_memory.Sizes, file: str, usable: int
) -> None:
    profile = qwen_memory.read_profile(IMAGE_EDIT / f"{file}.pbtxt")
    weights = qwen_memory.weight_bytes(sizes, profile, adapters=3, rank=64)
    peaks = qwen_memory.measure_peaks(
        LARGEST,
        vae_tiling=profile.vae_tiling,
        step_cache=profile.step_cache,
    )
    most = max(peaks.encode, peaks.step, peaks.decode)
    # The rest is for the contexts of two processes, workspaces, fragmentation and the masks.
    assert sum(weights.values()) + most < (usable - 5) * GIB


@pytest.mark.slow
def test_the_vae_keeps_no_features_for_a_next_frame() -> None:
    peaks = qwen_memory.measure_peaks(qwen_memory.EditSizes(1024, 1, 1024), vae_tiling=False)
    # With them it was 1.9 and 3.4 GiB.
    assert peaks.encode < 1.2 * GIB
    assert peaks.decode < 1.4 * GIB


def test_the_step_cache_keeps_three_tensors_of_all_tokens_for_each_pass() -> None:
    plain = qwen_memory.measure_peaks(SMALL, vae_tiling=False)
    caching = qwen_memory.measure_peaks(SMALL, vae_tiling=False, step_cache=True)
    tokens = 2 * 16**2 + qwen_memory.TEXT_TOKENS
    assert caching.step - plain.step == 2 * 3 * tokens * 3072 * 2


def test_8_bits_halve_the_linear_layers(sizes: qwen_memory.Sizes) -> None:
    full = qwen_memory.read_profile(IMAGE_EDIT / "config.pbtxt")
    half = replace(full, quantised=True)
    of_full = qwen_memory.weight_bytes(sizes, full, adapters=3, rank=16)
    of_half = qwen_memory.weight_bytes(sizes, half, adapters=3, rank=16)
    assert of_half["transformer"] == pytest.approx(of_full["transformer"] / 2, rel=0.01)
    assert of_half["vae"] == of_full["vae"]
    assert of_half["adapters"] == of_full["adapters"]


def test_a_step_holds_no_matrix_of_attention_scores() -> None:
    tokens = 2 * (256 // 16) ** 2 + qwen_memory.TEXT_TOKENS
    scores = 24 * tokens**2 * 2
    small = qwen_memory.measure_peaks(SMALL, vae_tiling=False)
    larger = qwen_memory.measure_peaks(qwen_memory.EditSizes(1024, 1, 1024), vae_tiling=False)
    assert small.step < 2 * scores
    assert larger.step < 8 * small.step  # tokens: 6 times as many; scores: 36 times


@pytest.mark.slow
def test_the_vae_needs_memory_by_area_unless_it_works_on_tiles() -> None:
    small = qwen_memory.measure_peaks(SMALL, vae_tiling=False)
    double = qwen_memory.measure_peaks(qwen_memory.EditSizes(512, 1, 512), vae_tiling=False)
    assert double.decode == pytest.approx(4 * small.decode, rel=0.1)
    whole = qwen_memory.measure_peaks(LARGEST, vae_tiling=False, step_cache=False)
    tiled = qwen_memory.measure_peaks(LARGEST, vae_tiling=True)
    assert tiled.decode < 0.4 * whole.decode


def test_memory_is_counted_while_it_is_held() -> None:
    with FakeTensorMode(), torch.no_grad():
        model = torch.nn.Linear(1000, 1000, bias=False)

        def run() -> None:
            first = model(torch.empty(1, 1000))  # 4 kB in, 4 kB out
            del first
            model(torch.empty(250, 1000))  # 1 MB in, 1 MB out, and nothing else alive

        assert qwen_memory.peak_bytes(model, run) == pytest.approx(2e6, rel=0.01)


@pytest.mark.slow
def test_the_command_tells_every_profile(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(
        (IMAGE_EDIT / "config.pbtxt").read_text().replace('"1048576"', '"65536"')
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cpu.pbtxt").write_bytes(
        (IMAGE_EDIT / "configs" / "cpu.pbtxt").read_bytes()
    )
    done = CliRunner().invoke(
        app, ["qwen-memory", "--repository", str(tmp_path), "--conditions", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "transformer: 20.430 billion parameters" in done.output
    assert "420 layers" in done.output
    assert done.output.count("config") == 2
    assert "cpu" not in done.output
