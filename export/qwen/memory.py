"""Owns measuring the memory that the full-size pipeline needs, on tensors without memory.

Weights are counted. The rest is the peak of all bytes that are alive while a forward pass runs on
fake tensors. Not included is what a device adds: context, kernels' workspaces, fragmentation.
"""

import contextlib
import functools
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from export.qwen import published as qwen_published
from export.qwen.transformer import linear_shapes
from export.serving_code import (
    drop_word_head,
    keep_to_pictures,
    quantised_class,
    work_on_tiles,
)

# Tokens of a prompt with three condition images: 3 x 196 of 384² pixels, the template, the words.
TEXT_TOKENS = 1024
# A token's side in pixels: the VAE's factor of 8, packed 2 x 2.
TOKEN_SIDE = 16
# The layers that people train for this model: all attention projections of both streams.
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
BYTES = 2  # of a bfloat16
# What 8-bit profiles quantise. A weight takes 1 byte; the scales are a thousandth of that.
QUANTISED = ("transformer", "text_encoder")
# The step cache keeps, for each of a guided step's two passes, the residuals of the first block
# and of all others, and the first block's answer.
KEPT_BY_STEP_CACHE = 2 * 3
_PARAMETER = re.compile(r'key: "(\w+)" value { string_value: "([^"]*)" }')


@dataclass(frozen=True)
class Sizes:
    """Sizes of the whole pipeline."""

    parameters: Mapping[str, int]
    """Component -> number of parameters."""
    quantised: Mapping[str, int]
    """Component -> how many of its parameters an 8-bit profile keeps in 8 bits."""
    lora: tuple[int, int]
    """Parameters of one LoRA of rank 1 on `LORA_TARGETS`, and how many layers it changes."""


@dataclass(frozen=True)
class Profile:
    """What a profile of image_edit decides about memory."""

    name: str
    """Name of the profile's file; `config` is the default."""
    on_gpu: bool
    """Whether the profile serves the full-size model at all."""
    quantised: bool
    """Whether linear layers of transformer and text encoder have 8 bits."""
    vae_tiling: bool
    """Whether the VAE works on tiles."""
    step_cache: bool
    """Whether steps are kept to spare later ones their blocks."""
    condition_area: int | None
    """Pixels of a condition image; None: the output's own area."""


@dataclass(frozen=True)
class EditSizes:
    """The sizes of a job that decide about memory."""

    side: int
    """Side of the picture, in pixels."""
    conditions: int
    """How many condition images."""
    condition_side: int
    """Side of each condition image, in pixels."""


@dataclass(frozen=True)
class Peaks:
    """Peak of the bytes that are alive beside the weights, by stage of a job."""

    encode: int
    step: int
    decode: int


def read_profile(path: Path) -> Profile:
    """Read a config.pbtxt of image_edit.

    Raises:
        KeyError: a parameter is missing.
    """
    text = path.read_text(encoding="utf-8")
    parameters = dict(_PARAMETER.findall(text))
    area = parameters["CONDITION_AREA"]
    return Profile(
        name=path.stem,
        on_gpu="KIND_GPU" in text,
        quantised=parameters["QUANTIZATION"] != "none",
        vae_tiling=parameters["VAE_TILING"] == "true",
        step_cache=float(parameters["STEP_CACHE"]) > 0,
        condition_area=None if area == "output" else int(area),
    )


def weight_bytes(sizes: Sizes, profile: Profile, adapters: int, rank: int) -> dict[str, int]:
    """Return the bytes of the weights that stay on the device, by component.

    Args:
        sizes: sizes of the pipeline.
        profile: decides which components are quantised.
        adapters: how many adapters are resident.
        rank: rank of each adapter.
    """
    saved = 1 if profile.quantised else 0
    found = {
        name: BYTES * count - (saved * sizes.quantised.get(name, 0))
        for name, count in sizes.parameters.items()
    }
    return found | {"adapters": BYTES * adapters * rank * sizes.lora[0]}


def build_components() -> dict[str, Any]:
    """Build all three components as published, without memory."""
    with fake_bfloat16():
        return _build_components()


def _build_components() -> dict[str, Any]:
    return {
        "transformer": QwenImageTransformer2DModel(**qwen_published.TRANSFORMER),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(**qwen_published.TEXT_ENCODER)
        ),
        "vae": AutoencoderKLQwenImage(**qwen_published.VAE),
    }


def measure_sizes() -> Sizes:
    """Count what stays of all three components once they are loaded."""
    with fake_bfloat16():
        components = _build_components()
        drop_word_head(components["text_encoder"])
        keep_to_pictures(components["vae"])
    targets = [
        shape
        for name, shape in linear_shapes(components["transformer"]).items()
        if name.endswith(LORA_TARGETS)
    ]
    return Sizes(
        parameters={
            name: sum(weight.numel() for weight in component.parameters())
            for name, component in components.items()
        },
        quantised={name: _quantised_weights(components[name]) for name in QUANTISED},
        lora=(sum(rows + columns for rows, columns in targets), len(targets)),
    )


def _quantised_weights(component: torch.nn.Module) -> int:
    return sum(
        layer.weight.numel()
        for name, layer in component.named_modules()
        if isinstance(layer, torch.nn.Linear) and quantised_class(name, layer, "int8")
    )


def measure_peaks(job: EditSizes, *, vae_tiling: bool, step_cache: bool = False) -> Peaks:
    """Run each stage of a job once on fake tensors; what was measured before is not run again.

    Args:
        job: the job's sizes.
        vae_tiling: whether the VAE works on tiles.
        step_cache: whether steps are kept; their memory is added, not found.
    """
    sides = (job.side, *[job.condition_side] * job.conditions)
    tokens = sum((side // TOKEN_SIDE) ** 2 for side in sides) + TEXT_TOKENS
    shape = qwen_published.TRANSFORMER
    width = shape["num_attention_heads"] * shape["attention_head_dim"]
    kept = KEPT_BY_STEP_CACHE * tokens * width * BYTES
    return Peaks(
        encode=_encode_peak(job.condition_side, vae_tiling),
        step=_step_peak(sides) + int(step_cache) * kept,
        decode=_decode_peak(job.side, vae_tiling),
    )


@functools.cache
def _encode_peak(side: int, tiling: bool) -> int:
    with fake_bfloat16():
        vae = _vae(tiling)
        picture = torch.empty(1, 3, 1, side, side)
        return peak_bytes(vae, lambda: vae.encode(picture))


@functools.cache
def _step_peak(sides: tuple[int, ...]) -> int:
    with fake_bfloat16():
        transformer = QwenImageTransformer2DModel(**qwen_published.TRANSFORMER).eval()
        grids = [(1, side // TOKEN_SIDE, side // TOKEN_SIDE) for side in sides]
        inputs = {
            "hidden_states": torch.empty(1, sum(h * w for _, h, w in grids), 64),
            "encoder_hidden_states": torch.empty(1, TEXT_TOKENS, 3584),
            "encoder_hidden_states_mask": None,
            "timestep": torch.empty(1),
            "img_shapes": [grids],
            "return_dict": False,
        }
        return peak_bytes(transformer, lambda: transformer(**inputs))


@functools.cache
def _decode_peak(side: int, tiling: bool) -> int:
    with fake_bfloat16():
        vae = _vae(tiling)
        latents = torch.empty(1, 16, 1, side // 8, side // 8)
        return peak_bytes(vae, lambda: vae.decode(latents))


def _vae(tiling: bool) -> Any:
    vae = AutoencoderKLQwenImage(**qwen_published.VAE).eval()
    keep_to_pictures(vae)
    if tiling:
        work_on_tiles(vae)
    return vae


def peak_bytes(model: Any, run: Callable[[], Any]) -> int:
    """Return the peak of the bytes alive beside a model's weights while a function runs."""
    live = _LiveBytes(model)
    with live, _FusedAttention():
        run()
    return live.peak


@contextlib.contextmanager
def fake_bfloat16() -> Iterator[None]:
    """Let tensors be made without memory, in bfloat16 unless they ask for another type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of all tensors that operations make, until they are gone.

    A model's weights, which operations return as views, do not count.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        """Largest number of bytes alive at once so far."""
        self._live = 0
        weights = (weight.untyped_storage() for weight in model.parameters())
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet(weights)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._live -= size


class _FusedAttention(TorchFunctionMode):
    """Attention as GPUs run it, without a matrix of all scores; fake tensors would build one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else (kwargs or {})["query"])
        return func(*args, **(kwargs or {}))
