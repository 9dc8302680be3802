"""What a tuning changes, on the demo bundle: memory, time, and pictures slightly at most."""

from __future__ import annotations

import json
import math
import re
import shutil
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode

from image_edit.engine.bundle import Bundle, load_bundle
from image_edit.engine.engine import EditEngine
from image_edit.engine.quantised import (
    LEAST_DECIBELS,
    Float8Linear,
    Int8Linear,
    quantise,
    quantised_class,
)
from image_edit.engine.tuning import refuse_unfit, torch_dtype
from image_edit.settings import Tuning
from tests.models.image_edit.engine.test_engine import SHIFT, denoised, prepared, spec_of

from .edits import picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from image_edit.conditions import Pixels
    from image_edit.spec import EditSpec


def edited(bundle: Bundle, task_type: str = "removal", side: int = 64) -> Pixels:
    engine = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    images = np.stack([picture(side, side, seed) for seed in range(2)])
    spec = spec_of(task_type=task_type, images=images, size=(side, side))
    return engine.decode(denoised(engine, spec))


def psnr(one: Pixels, other: Pixels) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


@pytest.fixture(scope="module", params=["int8", "fp8"])
def quantised(bundle_folder: Path, request: pytest.FixtureRequest) -> Bundle:
    return load_bundle(bundle_folder, Tuning("bfloat16", quantization=request.param), "cpu")


def test_8_bits_are_what_is_kept(quantised: Bundle) -> None:
    layer = quantised.pipeline.transformer.transformer_blocks[0].attn.to_q
    assert layer.base_layer.weight.dtype is torch.int8
    assert {str(lora.weight.dtype) for lora in layer.lora_A.values()} == {"torch.bfloat16"}
    encoder = quantised.pipeline.text_encoder.model.language_model.layers[0].mlp.up_proj
    assert encoder.weight.dtype is torch.int8
    for kept in ("img_in", "txt_in", "proj_out"):
        layer = quantised.pipeline.transformer.get_submodule(kept)
        assert layer.weight.dtype is torch.bfloat16
    assert quantised.pipeline.vae.decoder.conv_in.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer", "rounding"), [(Int8Linear, 0.01), (Float8Linear, 0.05)])
def test_8_bits_are_near_to_what_they_stand_for(
    layer: Callable[[torch.nn.Linear], torch.nn.Linear], rounding: float, bias: bool
) -> None:
    linear = torch.nn.Linear(64, 32, bias=bias, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight[3] = 0
        inputs = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
        inputs[1, 2] = 0
        expected = linear(inputs)
        found = layer(linear)(inputs)
    assert torch.linalg.norm(found - expected) < rounding * torch.linalg.norm(expected)
    assert torch.equal(found[..., 3], expected[..., 3])
    assert torch.equal(found[1, 2], expected[1, 2])


def test_8_bit_floats_skip_what_the_hardware_cannot_take() -> None:
    model = torch.nn.ModuleDict(
        {
            "fits": torch.nn.Linear(32, 16, bias=False),
            "does_not": torch.nn.Linear(32, 17, bias=False),
        }
    )
    quantise(model, "fp8", "cpu")
    assert [type(layer) for layer in model.values()] == [Float8Linear, torch.nn.Linear]
    # As a model is cast when its adapters have been attached.
    before = model["fits"](torch.ones(1, 32))
    assert torch.equal(model.to(torch.bfloat16)["fits"](torch.ones(1, 32)), before)


def with_an_outlier(size: float) -> torch.nn.Linear:
    """Return a layer each of whose rows has a weight that is so many times the usual one."""
    layer = torch.nn.Linear(3072, 16, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(16, 3072, generator=torch.Generator().manual_seed(0)))
        layer.weight[:, 0] = size
    return layer


@pytest.mark.parametrize(
    ("kind", "expected"),
    # A large weight takes the integers of its row their resolution.
    [("int8", [41, 32, 26]), ("fp8", [33, 33, 33])],
)
def test_the_rounding_of_each_layer_is_measured(kind: str, expected: list[float]) -> None:
    model = torch.nn.ModuleList([with_an_outlier(size) for size in (3, 10, 20)])
    found = quantise(model, kind, "cpu")
    assert [each.name for each in found] == ["0", "1", "2"]
    assert [each.decibels for each in found] == pytest.approx(expected, abs=0.7)
    assert not any(each.kept for each in found)


def test_a_layer_that_would_lose_too_much_stays_as_it_is() -> None:
    model = torch.nn.ModuleDict({"usual": with_an_outlier(3), "outlier": with_an_outlier(1000)})
    before = model["outlier"](torch.ones(1, 3072, dtype=torch.bfloat16))
    usual, outlier = quantise(model, "int8", "cpu")
    assert (usual.kept, outlier.kept) == (False, True)
    assert outlier.decibels < LEAST_DECIBELS < usual.decibels
    assert [type(layer) for layer in model.values()] == [Int8Linear, torch.nn.Linear]
    assert torch.equal(model["outlier"](torch.ones(1, 3072, dtype=torch.bfloat16)), before)


def test_weights_of_nothing_lose_nothing() -> None:
    layer = torch.nn.Linear(32, 16, bias=False)
    torch.nn.init.zeros_(layer.weight)
    for kind in ("int8", "fp8"):
        [found] = quantise(torch.nn.ModuleList([layer]), kind, "cpu")
        assert (found.decibels, found.kept) == (math.inf, False)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_each_layer_is_let_go_before_the_next_is_moved(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6)))
    layers = [weakref.ref(layer) for layer in model]
    alive = []

    def move(layer: torch.nn.Linear, _device: str) -> torch.nn.Linear:
        alive.append(sum(each() is not None for each in layers))
        return layer

    monkeypatch.setattr(torch.nn.Linear, "to", move)
    quantise(model, kind, "cpu")
    # The one before may still be what the loop's variable names.
    assert alive == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("capability", "compile_blocks", "refusal"),
    [
        ((8, 0), True, r"fp8 needs .*\(8, 9\).*\(8, 0\)"),
        ((9, 0), False, "fp8 is slower than bfloat16 unless COMPILE is true"),
    ],
)
def test_8_bit_floats_are_refused_where_they_save_no_time(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capability: tuple[int, int],
    compile_blocks: bool,
    refusal: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    tuning = Tuning("bfloat16", quantization="fp8", compile_blocks=compile_blocks)
    # Before anything is read: no bundle is there.
    with pytest.raises(ValueError, match=f"parameter QUANTIZATION: {refusal}"):
        load_bundle(tmp_path, tuning, "cuda:0")


def test_8_bit_floats_are_accepted_where_they_save_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    refuse_unfit(Tuning("bfloat16", quantization="fp8", compile_blocks=True), "cuda:0")


def test_what_a_step_meets_once_is_not_rounded_to_8_bit_floats() -> None:
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel(num_layers=1)
    classes = {
        name: quantised_class(name, layer, "fp8")
        for name, layer in transformer.named_modules()
        if type(layer) is torch.nn.Linear
    }
    kept = [name for name, found in classes.items() if found is None]
    assert kept == [
        "time_text_embed.timestep_embedder.linear_1",
        "time_text_embed.timestep_embedder.linear_2",
        "img_in",
        "txt_in",
        "norm_out.linear",
        "proj_out",
    ]
    whole = [name for name, found in classes.items() if found is Int8Linear]
    assert whole == ["transformer_blocks.0.img_mod.1", "transformer_blocks.0.txt_mod.1"]
    assert len([found for found in classes.values() if found is Float8Linear]) == 12


class Kernels(TorchDispatchMode):
    """Names what is computed, but not what is only looked at in another shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


def test_whole_numbers_cost_one_kernel_beside_the_multiplication() -> None:
    layer = Int8Linear(torch.nn.Linear(64, 32).bfloat16())
    inputs = torch.ones(2, 5, 64, dtype=torch.bfloat16)
    with torch.inference_mode(), Kernels() as kernels:
        layer(inputs)
    assert kernels.names == ["mul", "linear"]


def test_whole_numbers_lose_less_than_half_a_percent() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(1024, 1024, dtype=torch.bfloat16)
    with torch.no_grad():
        linear.weight.copy_(torch.rand(1024, 1024, generator=generator) - 0.5)
        inputs = torch.randn(64, 1024, generator=generator).bfloat16()
        exact = torch.nn.functional.linear(
            inputs.double(), linear.weight.double(), linear.bias.double()
        )
        error = torch.linalg.norm(Int8Linear(linear)(inputs) - exact)
    assert error < 0.0049 * torch.linalg.norm(exact)


def test_each_part_is_in_8_bits_before_the_next_is_loaded(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    load_bundle(bundle_folder, Tuning("bfloat16", quantization="int8"), "cpu", stages.append)
    assert stages[1:7] == [
        "loading the text encoder",
        "quantising the text encoder to int8",
        "26 of 26 layers of the text encoder have 8 bits",
        "loading the transformer",
        "quantising the transformer to int8",
        "42 of 42 layers of the transformer have 8 bits",
    ]


def test_the_load_names_each_layer_that_stays_as_it_is(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_edit.engine.quantised.LEAST_DECIBELS", 41)
    stages: list[str] = []
    tuned = Tuning("bfloat16", quantization="int8")
    loaded = load_bundle(bundle_folder, tuned, "cpu", stages.append)
    [said] = [each for each in stages if "layers of the transformer have 8 bits; not " in each]
    kept = re.findall(r"(transformer_blocks\S+) \(([\d.]+) dB\)", said)
    assert 0 < len(kept) < 42
    assert [float(decibels) for _, decibels in kept] == sorted(float(each) for _, each in kept)
    layers = dict(loaded.pipeline.transformer.named_modules())
    for name, _ in kept:
        layer = getattr(layers[name], "base_layer", layers[name])
        assert type(layer) is torch.nn.Linear


def test_8_bits_change_the_picture_slightly(bundle_folder: Path, quantised: Bundle) -> None:
    one, other = edited(load_bundle(bundle_folder, Tuning("bfloat16"), "cpu")), edited(quantised)
    assert 20 < psnr(one, other) < 60


def test_adapters_of_8_bit_weights_are_switched_back_and_forth(quantised: Bundle) -> None:
    removal, insertion = edited(quantised), edited(quantised, "insertion")
    assert psnr(removal, insertion) < 30
    assert np.array_equal(edited(quantised), removal)


def test_tiles_change_only_what_lies_near_their_seams(
    bundle: Bundle, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_edit.engine.vae.TILE", 256)
    monkeypatch.setattr("image_edit.engine.vae.TILE_DISTANCE", 192)
    tiled = load_bundle(bundle_folder, Tuning("float32", vae_tiling=True), "cpu")
    assert np.array_equal(edited(tiled, side=128), edited(bundle, side=128))
    one, other = edited(bundle, side=320), edited(tiled, side=320)
    assert 25 < psnr(one, other) < np.inf


def test_auto_is_what_the_processor_computes_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert torch_dtype(Tuning("auto"), "cpu") is expected
        assert torch_dtype(Tuning("auto"), "cuda:0") is torch.bfloat16
        assert torch_dtype(Tuning("float16"), "cpu") is torch.float16


def test_another_attention_gives_the_same_picture(bundle: Bundle, bundle_folder: Path) -> None:
    other = load_bundle(bundle_folder, Tuning("float32", attention_backend="_native_math"), "cpu")
    try:
        assert psnr(edited(bundle), edited(other)) > 50
    finally:
        other.pipeline.transformer.set_attention_backend("native")


@pytest.mark.parametrize("backend", ["telepathy", "flash"])
def test_an_attention_that_is_not_there_fails_the_load(bundle_folder: Path, backend: str) -> None:
    with pytest.raises(ValueError, match=rf"ATTENTION_BACKEND: .*{backend}"):
        load_bundle(bundle_folder, Tuning("float32", attention_backend=backend), "cpu")


@pytest.fixture(scope="module")
def caching(bundle_folder: Path) -> EditEngine:
    tuned = load_bundle(bundle_folder, Tuning("float32", step_cache=0.6), "cpu")
    return EditEngine(tuned, condition_area=None, scheduler_shift=SHIFT)


def steps_of(seed: int) -> EditSpec:
    images = np.stack([picture(64, 64, each) for each in range(2)])
    return spec_of(images=images, size=(64, 64), num_inference_steps=6, seed=seed)


def test_cached_steps_are_skipped_and_change_the_picture(
    bundle: Bundle, caching: EditEngine
) -> None:
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    exact = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    hook = caching._pipeline.transformer.transformer_blocks[-1].attn.register_forward_hook(count)
    try:
        cached = caching.decode(denoised(caching, steps_of(1)))
    finally:
        hook.remove()
    assert 2 <= calls < 12  # of 6 steps, guided
    assert 15 < psnr(exact.decode(denoised(exact, steps_of(1))), cached) < np.inf


def test_no_edit_takes_anything_from_another_s_cached_steps(
    bundle: Bundle, caching: EditEngine
) -> None:
    alone = [caching.decode(denoised(caching, steps_of(seed))) for seed in (1, 2)]
    again = [caching.decode(denoised(caching, steps_of(seed))) for seed in (2, 1)]
    assert np.array_equal(alone[0], again[1])
    assert np.array_equal(alone[1], again[0])
    states = [prepared(caching, steps_of(seed)) for seed in (1, 2)]
    for _ in range(6):
        for state in states:
            caching.step(state)
    # Taking turns they skip nothing.
    exact = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    for seed, state in zip((1, 2), states, strict=True):
        assert psnr(caching.decode(state), exact.decode(denoised(exact, steps_of(seed)))) > 50


def test_nothing_of_the_step_cache_is_held_while_a_picture_is_decoded(
    caching: EditEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, transformer = caching._pipeline.vae, caching._pipeline.transformer
    states = [
        hook.state_manager
        for block in transformer.transformer_blocks
        for hook in block._diffusers_hook.hooks.values()
        if hasattr(hook, "state_manager")
    ]
    assert len(states) == len(transformer.transformer_blocks)

    def held() -> int:
        return sum(
            isinstance(kept.head_block_residual, torch.Tensor)
            for state in states
            for kept in state._state_cache.values()
        )

    decode, at_decode = vae.decode, []

    def note_and_decode(*args: Any, **kwargs: Any) -> Any:
        at_decode.append(held())
        return decode(*args, **kwargs)

    monkeypatch.setattr(vae, "decode", note_and_decode)
    state = denoised(caching, steps_of(1))
    assert held() > 0
    caching.decode(state)
    assert at_decode == [0]


@pytest.fixture(scope="module")
def with_lightning(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Make insertion's adapter serve removal and white-balance too, beside each one's own."""
    copy = shutil.copytree(bundle_folder, tmp_path_factory.mktemp("lightning") / "demo")
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    for task_type in ("removal", "white-balance"):
        manifest["adapters"][task_type]["lightning"] = manifest["adapters"]["insertion"]["file"]
    path.write_text(json.dumps(manifest))
    return load_bundle(copy, Tuning("float32"), "cpu")


def test_a_task_may_have_a_second_adapter(bundle: Bundle, with_lightning: Bundle) -> None:
    assert with_lightning.adapters["removal"] == ("removal", "insertion_cp")
    assert np.array_equal(edited(with_lightning, "insertion"), edited(bundle, "insertion"))
    both = edited(with_lightning, "removal")
    assert not np.array_equal(both, edited(bundle, "removal"))
    together = replace(bundle, adapters={"removal": ("removal", "insertion")})
    assert np.array_equal(both, edited(together))


def test_a_second_adapter_brings_lightning_s_schedule(with_lightning: Bundle) -> None:
    engine = EditEngine(with_lightning, condition_area=None, scheduler_shift=SHIFT)
    state = prepared(engine, spec_of(num_inference_steps=4))
    # 3 s / (1 + 2 s) of 1, 0.75, 0.5, 0.25; then 0.
    assert state.scheduler.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    own = prepared(engine, spec_of(num_inference_steps=4, task_type="insertion"))
    assert own.scheduler.sigmas.tolist() != pytest.approx([1, 0.9, 0.75, 0.5, 0])


@pytest.mark.slow
def test_compiled_blocks_and_the_step_cache_go_together(
    caching: EditEngine, bundle_folder: Path
) -> None:
    both = load_bundle(bundle_folder, Tuning("float32", step_cache=0.6, compile_blocks=True), "cpu")
    engine = EditEngine(both, condition_area=None, scheduler_shift=SHIFT)
    one, other = (each.decode(denoised(each, steps_of(1))) for each in (caching, engine))
    assert psnr(one, other) > 40


@pytest.mark.slow
def test_compiled_blocks_switch_adapters_and_sizes_without_compiling_anew(
    bundle: Bundle, bundle_folder: Path
) -> None:
    compiled = load_bundle(bundle_folder, Tuning("float32", compile_blocks=True), "cpu")
    for task_type in compiled.adapters:
        edited(compiled, task_type, side=96)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for task_type in compiled.adapters:
            for side in (64, 96, 128):
                found = edited(compiled, task_type, side)
                assert psnr(edited(bundle, task_type, side), found) > 40
