"""Owns linear layers that store their weights in 8 bits, as integers or as floats."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import ScalingType, scaled_mm

# The largest value of float8_e4m3fn.
FLOAT8_MAX = 448.0
# Tensor cores take 8-bit floats in rows of this many.
FLOAT8_ROW = 16
# Never quantised: layers of the transformer, by the first part of their names, that all values
# pass through. Their rounding would reach the whole picture, and they hold 0.2 % of the weights.
KEPT = ("img_in", "txt_in", "time_text_embed", "norm_out", "proj_out")
# Layers that multiply one row a step. 8-bit floats would save no time there, and integers times
# a row that is not rounded are more exact.
ONE_ROW = ("img_mod", "txt_mod")
# Decibels from the mean error of a layer's rounded weights up to the mean weight, at least; a layer
# below stays as it is. Means of magnitudes, because a few huge weights would hide in squares what
# became of all others. Normally distributed weights have 41 as integers, and 33 as 8-bit floats,
# which take large weights as they are. Integers have 25 where the largest weight of each row is 23
# times the usual one.
LEAST_DECIBELS = 25.0


class Int8Linear(nn.Linear):
    """A linear layer whose weights are integers of -127..127 times a scale for each output.

    It takes half the memory of bfloat16. While it computes, its own weights exist in full too. The
    class is a Linear, so that adapters attach to it as to any other.
    """

    scale: torch.Tensor
    """[out, 1], of the original layer's dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over a layer's weights and round them; the bias stays as it is."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        scale = _row_scale(weight, 127).to(weight.dtype)
        rounded = (weight.float() / scale.float()).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Turn [..., in] into [..., out], in the dtype of the input."""
        # Scale the weights, not the outputs: a picture has more outputs than a layer has weights.
        # One kernel makes the product, and the matrix multiplication adds the bias.
        return nn.functional.linear(input, self.weight * self.scale, self.bias)

    def rounded_weight(self) -> torch.Tensor:
        """Return the weights that the integers stand for: float32 [out, in]."""
        return self.weight.float() * self.scale.float()


class Float8Linear(nn.Linear):
    """A linear layer that multiplies 8-bit floats (e4m3): its weights and its rounded inputs.

    The weights of each output have a scale, and so has each token. The layer takes half the memory
    of bfloat16. Where the GPU can multiply 8-bit floats, the multiplication takes about half the
    time. Rounding the inputs costs what that saves, unless it is compiled. The class is a Linear,
    so that adapters attach to it as to any other; nothing rounds what they add.
    """

    scale_bits: torch.Tensor
    """int32 [out, 1]"""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over a layer's weights and round them; the bias stays as it is.

        Args:
            linear: its sides are multiples of `FLOAT8_ROW`.
        """
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        rounded, scale = _as_float8(linear.weight.detach())
        # Stored as integers, because casting a model casts all floats, and because adapters get
        # the type of the weights that they attach to.
        self.weight = nn.Parameter(rounded.view(torch.int8), requires_grad=False)
        self.register_buffer("scale_bits", scale.view(torch.int32))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Turn [..., in] into [..., out], in the dtype of the input."""
        rounded, scale = _as_float8(input.flatten(0, -2))
        product = scaled_mm(
            rounded,
            self.weight.view(torch.float8_e4m3fn).t(),
            scale,
            ScalingType.RowWise,
            self.scale_bits.view(torch.float32).t(),
            ScalingType.RowWise,
            bias=None if self.bias is None else self.bias.to(torch.bfloat16),
            output_dtype=torch.bfloat16,
            # Sum in the tensor cores' own precision, as all published fp8 inference does. The
            # alternative moves every partial sum out of them.
            use_fast_accum=True,
        )
        return product.to(input.dtype).view(*input.shape[:-1], -1)

    def rounded_weight(self) -> torch.Tensor:
        """Return the weights that the 8-bit floats stand for: float32 [out, in]."""
        rounded = self.weight.view(torch.float8_e4m3fn).float()
        return rounded * self.scale_bits.view(torch.float32)


@dataclass(frozen=True)
class Rounding:
    """What rounding a layer's weights to 8 bits costs, or would cost."""

    name: str
    """Of the layer, in its model."""
    decibels: float
    """From the mean error up to the mean weight; infinite without an error."""
    kept: bool
    """Whether the layer stays as it is, because the error is too large."""


def quantise(model: nn.Module, kind: str, device: str) -> list[Rounding]:
    """Replace linear layers of a model, one after the other, each moved to the device first.

    A layer that would lose more than `LEAST_DECIBELS` allows stays as it is.

    Args:
        model: a transformer or a text encoder, without adapters; changed in place.
        kind: "int8" or "fp8"; see `quantised_class`.
        device: as torch names it; the whole model in bfloat16 need not fit there.

    Returns:
        What was measured, in the order of the layers.
    """
    found = []
    # Names only: a list of the layers would keep their old weights on the device.
    names = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer_class = quantised_class(name, layer, kind)
        if layer_class is None:
            continue
        layer = layer.to(device)
        quantised = layer_class(layer)
        decibels = _decibels(layer.weight.detach(), quantised)
        kept = decibels < LEAST_DECIBELS
        if not kept:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, quantised)
        found.append(Rounding(name, decibels, kept))
    return found


def quantised_class(
    name: str, layer: nn.Linear, kind: str
) -> type[Int8Linear] | type[Float8Linear] | None:
    """Return the class that replaces a linear layer; None: the layer stays as it is.

    Args:
        name: in its model.
        layer: only its sides matter.
        kind: "int8" or "fp8".
    """
    if name.split(".")[0] in KEPT:
        return None
    if kind == "int8" or any(part in ONE_ROW for part in name.split(".")):
        return Int8Linear
    fits = layer.in_features % FLOAT8_ROW == 0 and layer.out_features % FLOAT8_ROW == 0
    return Float8Linear if fits else None


def _decibels(weight: torch.Tensor, quantised: Int8Linear | Float8Linear) -> float:
    error = (quantised.rounded_weight() - weight.float()).abs().mean()
    ratio = (weight.float().abs().mean() / error).item()
    # Weights that are all 0 have no error, and 0 / 0 is no number.
    return 20 * math.log10(ratio) if math.isfinite(ratio) else math.inf


def _as_float8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn [n, k] into float8_e4m3fn [n, k] and its scales, float32 [n, 1]."""
    scale = _row_scale(rows, FLOAT8_MAX)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def _row_scale(rows: torch.Tensor, largest: float) -> torch.Tensor:
    """Return what to divide each row by, so that it ends at `largest`: float32 [n, 1], never 0."""
    most = rows.float().abs().amax(dim=1, keepdim=True)
    return most.clamp(min=torch.finfo(torch.float32).tiny * largest) / largest
