"""Owns linear layers that keep their weights in 8 bits, as whole numbers or as floats."""

import torch
from torch import nn
from torch.nn.functional import ScalingType, scaled_mm

# The largest value of float8_e4m3fn.
FLOAT8_MAX = 448.0
# Tensor cores take 8-bit floats in rows of this many.
FLOAT8_ROW = 16
# Layers of the transformer, by the first part of their names, through which all of an edit goes
# once: their rounding would be in every value of the picture, and they are 0.2 % of the weights.
KEPT = ("img_in", "txt_in", "time_text_embed", "norm_out", "proj_out")
# Layers that see one row of numbers a step. 8-bit floats could save no time there, and whole
# numbers, multiplied by rows that are not rounded, are nearer to the weights.
ONE_ROW = ("img_mod", "txt_mod")


class Int8Linear(nn.Linear):
    """A linear layer whose weights are whole numbers of -127..127 times a scale for each output.

    It takes half the memory of bfloat16, and one layer's weights in full while it computes. The
    class is a Linear, so that adapters attach to it as to any other.
    """

    scale: torch.Tensor
    """[out, 1], in the type of the layer that was taken over."""

    def __init__(self, linear: nn.Linear) -> None:
        """Takes over a layer's weights and rounds them; the bias stays as it is."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        scale = _row_scale(weight, 127).to(weight.dtype)
        rounded = (weight.float() / scale.float()).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """[..., in] -> [..., out], in the type of the input."""
        # The scales go into the weights, which are fewer than the outputs of a picture. One
        # kernel makes the product, and the matrix multiplication adds the bias.
        return nn.functional.linear(input, self.weight * self.scale, self.bias)


class Float8Linear(nn.Linear):
    """A linear layer that multiplies in 8-bit floats (e4m3), weights and inputs alike.

    Each output's weights and each token have a scale. It takes half the memory of bfloat16. On
    the GPUs that can, the multiplication alone takes about half the time; the rounding of its
    inputs takes that back unless it is compiled. The class is a Linear, so that adapters attach
    to it as to any other; what they add is not rounded.
    """

    scale_bits: torch.Tensor
    """int32 [out, 1]"""

    def __init__(self, linear: nn.Linear) -> None:
        """Takes over a layer's weights and rounds them; the bias stays as it is.

        Args:
            linear: its sides are multiples of `FLOAT8_ROW`.
        """
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        rounded, scale = _as_float8(linear.weight.detach())
        # Bits as whole numbers: a model that is cast casts all floats, and adapters would take
        # the type of the weights that they lie beside.
        self.weight = nn.Parameter(rounded.view(torch.int8), requires_grad=False)
        self.register_buffer("scale_bits", scale.view(torch.int32))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """[..., in] -> [..., out], in the type of the input."""
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
            # Adds up in the tensor cores' own precision, as all published fp8 inference does;
            # the alternative moves every partial sum out of them.
            use_fast_accum=True,
        )
        return product.to(input.dtype).view(*input.shape[:-1], -1)


def quantise(model: nn.Module, kind: str, device: str) -> None:
    """Replaces linear layers of a model, one after the other, each moved to the device first.

    Args:
        model: a transformer or a text encoder, without adapters.
        kind: "int8" or "fp8"; see `quantised_class`.
        device: as torch names it; all of the model in bfloat16 need not fit there.
    """
    # Names alone: a layer that is kept after its turn would keep its weights on the device.
    names = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer_class = quantised_class(name, layer, kind)
        if layer_class is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer_class(layer.to(device)))


def quantised_class(
    name: str, layer: nn.Linear, kind: str
) -> type[Int8Linear] | type[Float8Linear] | None:
    """What a linear layer becomes; None: it stays as it is.

    Args:
        name: in its model.
        layer: only its sides are looked at.
        kind: "int8" or "fp8".
    """
    if name.split(".")[0] in KEPT:
        return None
    if kind == "int8" or any(part in ONE_ROW for part in name.split(".")):
        return Int8Linear
    fits = layer.in_features % FLOAT8_ROW == 0 and layer.out_features % FLOAT8_ROW == 0
    return Float8Linear if fits else None


def _as_float8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, k] -> float8_e4m3fn [n, k] and its scales, float32 [n, 1]."""
    scale = _row_scale(rows, FLOAT8_MAX)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def _row_scale(rows: torch.Tensor, largest: float) -> torch.Tensor:
    """float32 [n, 1]: by what each row is divided to end at `largest`; never 0."""
    most = rows.float().abs().amax(dim=1, keepdim=True)
    return most.clamp(min=torch.finfo(torch.float32).tiny * largest) / largest
