"""Owns measuring the memory that the full-size pipeline needs, on tensors without memory.

Weights are counted. The rest is the peak of all bytes that are alive while a forward pass runs on
fake tensors. Not included is what a device adds: context, kernels' workspaces, fragmentation.
"""

import contextlib
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

# Tokens of a prompt with three condition images: 3 x 196 of 384² pixels, the template, the words.
TEXT_TOKENS = 1024
# A token's side in pixels: the VAE's factor of 8, packed 2 x 2.
TOKEN_SIDE = 16
# The layers that people train for this model: all attention projections of both streams.
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
BYTES = 2  # of a bfloat16
# In 8 bits, their linear layers take 1 byte a weight; the scales take a thousandth of that.
QUANTISED = ("transformer", "text_encoder")
_PARAMETER = re.compile(r'key: "(\w+)" value { string_value: "([^"]*)" }')


@dataclass(frozen=True)
class Sizes:
    """Sizes of the whole pipeline."""

    parameters: Mapping[str, int]
    """Component -> number of parameters."""
    linear: Mapping[str, int]
    """Component -> how many of its parameters are weights of linear layers."""
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
    condition_area: int | None
    """Pixels of a condition image; None: the output's own area."""


@dataclass(frozen=True)
class Job:
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
        name: BYTES * count - (saved * sizes.linear[name] if name in QUANTISED else 0)
        for name, count in sizes.parameters.items()
    }
    return found | {"adapters": BYTES * adapters * rank * sizes.lora[0]}


def measure_sizes() -> Sizes:
    """Build all three components and count their parameters."""
    with _fake_bfloat16():
        components = {
            "transformer": QwenImageTransformer2DModel(**qwen_published.TRANSFORMER),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(**qwen_published.TEXT_ENCODER)
            ),
            "vae": AutoencoderKLQwenImage(**qwen_published.VAE),
        }
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
        linear={
            name: sum(rows * columns for rows, columns in linear_shapes(component).values())
            for name, component in components.items()
        },
        lora=(sum(rows + columns for rows, columns in targets), len(targets)),
    )


def measure_peaks(job: Job, vae_tiling: bool) -> Peaks:
    """Run each stage of a job once on fake tensors.

    Args:
        job: the job's sizes.
        vae_tiling: whether the VAE works on tiles.
    """
    with _fake_bfloat16():
        transformer = QwenImageTransformer2DModel(**qwen_published.TRANSFORMER).eval()
        vae = AutoencoderKLQwenImage(**qwen_published.VAE).eval()
        if vae_tiling:
            vae.enable_tiling()
        grids = [
            (1, side // TOKEN_SIDE, side // TOKEN_SIDE)
            for side in (job.side, *[job.condition_side] * job.conditions)
        ]
        inputs = {
            "hidden_states": torch.empty(1, sum(h * w for _, h, w in grids), 64),
            "encoder_hidden_states": torch.empty(1, TEXT_TOKENS, 3584),
            "encoder_hidden_states_mask": None,
            "timestep": torch.empty(1),
            "img_shapes": [grids],
            "return_dict": False,
        }
        picture = torch.empty(1, 3, 1, job.condition_side, job.condition_side)
        latents = torch.empty(1, 16, 1, job.side // 8, job.side // 8)
        return Peaks(
            encode=_peak(vae, lambda: vae.encode(picture)),
            step=_peak(transformer, lambda: transformer(**inputs)),
            decode=_peak(vae, lambda: vae.decode(latents)),
        )


def _peak(model: Any, run: Callable[[], Any]) -> int:
    live = _LiveBytes(model)
    with live, _FusedAttention():
        run()
    return live.peak


@contextlib.contextmanager
def _fake_bfloat16() -> Iterator[None]:
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
