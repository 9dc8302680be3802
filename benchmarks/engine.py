"""Owns measuring the engine beside diffusers: the VAE, whole edits, 8-bit layers, compilation."""

import contextlib
import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKLQwenImage
from matplotlib.axes import Axes
from PIL import Image
from torch import nn

from benchmarks.overhead import BareDiffusers
from benchmarks.report import summary
from export.demo_edits.results import Editor, held_out
from export.demo_edits.samples import Flow
from export.qwen import published
from export.qwen.memory import fake_bfloat16, peak_bytes
from export.serving_code import Tuning, keep_to_pictures, torch_dtype
from image_edit.engine.quantised import Float8Linear, Int8Linear, Rounding, quantise

GIB = 2**30
FULL_SIDES = (1024, 2048)
STEPS = 8


def measure(bundle: Path, *, rounds: int, size: int) -> dict[str, Any]:
    """Measure in this process, every pair by turns.

    Args:
        bundle: the demo's bundle.
        rounds: how many pairs.
        size: side of pictures, in pixels.

    Returns:
        `vae`: seconds by diffusers and as served, and the ratio of each pair; `vae_gib`: peak of
        the full-size VAE beside its weights, computed; `edit`: the same of whole edits. `rounding`:
        decibels of each layer's 8-bit weights and outputs. `compiled`: seconds of an edit by
        eager and by compiled blocks, and graphs.
    """
    return {
        "size": size,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "vae": _vae(bundle, rounds, size),
        "vae_gib": _full_size_peaks(),
        "edit": _edits(bundle, rounds, size),
        "rounding": _roundings(bundle, size),
        "compiled": _compiled(bundle, rounds, size),
    }


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the ratios to diffusers."""
    ratios = {
        "VAE encodes": results["vae"]["encode"]["ratio"],
        "VAE decodes": results["vae"]["decode"]["ratio"],
        "whole edit": results["edit"]["ratio"],
        "edit, compiled": results["compiled"]["real"]["ratio"],
        "edit, compiled, complex": results["compiled"]["complex"]["ratio"],
    }
    names = list(reversed(ratios))
    bars = axes.barh(names, [ratios[name]["median"] for name in names])
    axes.bar_label(bars, [f"{ratios[name]['median']:.2f}" for name in names], padding=3)
    axes.axvline(1, color="grey", linewidth=0.5)
    axes.set(
        title=f"Time at {results['size']}², divided by diffusers' (compiled: by eager blocks')",
        xlim=(0, 1.4),
    )


def _by_turns(
    before: Callable[[], Any], after: Callable[[], Any], rounds: int
) -> dict[str, dict[str, Any]]:
    """Time two functions by turns, after a first call of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, taken in zip((before, after), seconds, strict=True):
            started = time.perf_counter()
            run()
            if number:
                taken.append(time.perf_counter() - started)
    return {
        "before_s": summary(seconds[0]),
        "after_s": summary(seconds[1]),
        "ratio": summary([b / a for a, b in zip(*seconds, strict=True)]),
    }


@torch.inference_mode()
def _vae(bundle: Path, rounds: int, size: int) -> dict[str, Any]:
    dtype = torch_dtype(Tuning("auto"), "cpu")
    own, served = (
        AutoencoderKLQwenImage.from_pretrained(
            bundle / "pipeline" / "vae", dtype=dtype, local_files_only=True
        ).eval()
        for _ in range(2)
    )
    keep_to_pictures(served)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 3, 1, size, size, generator=generator).to(dtype)
    latents = torch.randn(1, 16, 1, size // 8, size // 8, generator=generator).to(dtype)
    return {
        "dtype": str(dtype),
        "encode": _by_turns(lambda: own.encode(picture), lambda: served.encode(picture), rounds),
        "decode": _by_turns(lambda: own.decode(latents), lambda: served.decode(latents), rounds),
    }


def _full_size_peaks() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with fake_bfloat16():
        own, served = (AutoencoderKLQwenImage(**published.VAE).eval() for _ in range(2))
        keep_to_pictures(served)
        for side in FULL_SIDES:
            picture = torch.empty(1, 3, 1, side, side)
            latents = torch.empty(1, 16, 1, side // 8, side // 8)
            for name, vae in (("before", own), ("after", served)):
                found.setdefault(str(side), {})[name] = {
                    "encode": round(
                        peak_bytes(vae, functools.partial(vae.encode, picture)) / GIB, 2
                    ),
                    "decode": round(
                        peak_bytes(vae, functools.partial(vae.decode, latents)) / GIB, 2
                    ),
                }
    return found


def _edits(bundle: Path, rounds: int, size: int) -> dict[str, Any]:
    bare, editor = BareDiffusers(bundle, size), Editor(bundle)
    sample = held_out(Flow.REFERENCE, 0, size)
    request = {
        "prompt": sample.request.prompt,
        "negative_prompt": " ",
        "true_cfg_scale": 4.0,
        "num_inference_steps": STEPS,
        "seed": 0,
    }
    conditions = [Image.fromarray(each) for each in sample.conditions.images]
    times = _by_turns(
        lambda: bare.edit(conditions, request), lambda: editor.edit(sample, STEPS), rounds
    )
    return {"steps": STEPS, "conditions": len(conditions)} | times


@torch.inference_mode()
def _roundings(bundle: Path, size: int) -> dict[str, Any]:
    """Round every layer of the transformer, and compare its outputs in one step of an edit."""
    inputs = _inputs(Editor(bundle, Tuning("float32")), size)
    plain = Editor(bundle, Tuning("float32")).transformer
    layers = {
        name: getattr(layer, "base_layer", layer)
        for name, layer in plain.named_modules()
        if name in inputs
    }
    rows = []
    for name, layer in layers.items():
        exact = nn.functional.linear(inputs[name], layer.weight, layer.bias)
        half = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        half.load_state_dict(layer.state_dict())
        half.to(torch.bfloat16)
        row: dict[str, Any] = {"layer": name}
        for kind, quantised in (("int8", Int8Linear(half)), ("fp8", Float8Linear(half))):
            [rounding] = _rounding(half, kind)
            row[f"{kind}_weights"] = round(rounding.decibels, 1)
            found = quantised(inputs[name].to(torch.bfloat16)).float()
            row[f"{kind}_outputs"] = _decibels(found, exact)
        whole = Int8Linear(half)
        after = nn.functional.linear(inputs[name].bfloat16(), whole.weight.bfloat16())
        after = after * whole.scale[:, 0]
        if whole.bias is not None:
            after = after + whole.bias
        row["int8_scaled_after"] = _decibels(after.float(), exact)
        row["bfloat16"] = _decibels(half(inputs[name].bfloat16()).float(), exact)
        rows.append(row)
    columns = [key for key in rows[0] if key != "layer"]
    return {
        "lowest": {key: min(row[key] for row in rows) for key in columns},
        "median": {key: round(statistics.median(row[key] for row in rows), 1) for key in columns},
        "layers": rows,
    }


def _rounding(layer: nn.Linear, kind: str) -> list[Rounding]:
    return quantise(nn.ModuleList([layer]), kind, "cpu")


def _decibels(found: torch.Tensor, exact: torch.Tensor) -> float:
    return round(20 * math.log10(exact.norm() / (found - exact).norm()), 1)


def _inputs(editor: Editor, size: int) -> dict[str, torch.Tensor]:
    """Return [rows, in] of each layer that the profile h100 rounds to 8-bit floats, in a step."""
    seen: dict[str, torch.Tensor] = {}

    def note(name: str, _layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.setdefault(name, args[0].flatten(0, -2))

    for name, layer in editor.transformer.transformer_blocks.named_modules():
        base = getattr(layer, "base_layer", layer)
        leaf = name.rpartition(".")[2]
        if isinstance(base, nn.Linear) and "lora" not in name and leaf != "base_layer":
            whole = f"transformer_blocks.{name}"
            if "_mod." not in name:
                layer.register_forward_pre_hook(functools.partial(note, whole))
    editor.edit(held_out(Flow.REFERENCE, 0, size), 1)
    return seen


def _compiled(bundle: Path, rounds: int, size: int) -> dict[str, Any]:
    """Compare edits by eager blocks with those by compiled ones, without complex numbers and with.

    Three adapters at two sizes are compiled, or found to need no more.
    """
    found: dict[str, Any] = {"steps": STEPS}
    eager = Editor(bundle, Tuning("auto"))
    sample = held_out(Flow.REFERENCE, 0, size)
    for numbers in ("real", "complex"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if numbers == "complex":
                name = "image_edit.engine.tuning.turn_in_real_numbers"
                stack.enter_context(mock.patch(name))
            compiled = Editor(bundle, Tuning("auto", compile_blocks=True))
        for flow in (Flow.REMOVAL, Flow.REFERENCE, Flow.WHITE_BALANCE):
            for side in (size, size + 32):
                compiled.edit(held_out(flow, 0, side), 1)
        counters = torch._dynamo.utils.counters
        found[numbers] = {
            "first_edits_s": round(time.perf_counter() - started, 1),
            "graphs": int(counters["stats"]["unique_graphs"]),
            "graph_breaks": sum(counters["graph_break"].values()),
        } | _by_turns(
            functools.partial(eager.edit, sample, STEPS),
            functools.partial(compiled.edit, sample, STEPS),
            rounds,
        )
    return found
