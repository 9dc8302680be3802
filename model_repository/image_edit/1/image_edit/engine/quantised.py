"""Linear layers that keep their weights in 8 bits, as whole numbers or as floats."""

import torch
from torch import nn
from torch.nn.functional import ScalingType, scaled_mm

# The largest value of float8_e4m3fn.
FLOAT8_MAX = 448.0
# Tensor cores take 8-bit floats in rows of this many.
FLOAT8_ROW = 16
# Compute capability of the first GPUs that multiply 8-bit floats: Ada, and Hopper after it.
FLOAT8_CAPABILITY = (8, 9)


class Int8Linear(nn.Linear):
    """A linear layer whose weights are whole numbers of -127..127 times a scale for each output.

    It takes half the memory of bfloat16, and one layer's weights in full while it computes. The
    class is a Linear, so that adapters attach to it as to any other.
    """

    scale: torch.Tensor
    """[out]"""

    def __init__(self, linear: nn.Linear) -> None:
        """Takes over a layer's weights and rounds them; the bias stays as it is."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        scale = _row_scale(weight, 127)[:, 0]
        rounded = (weight.float() / scale[:, None]).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("scale", scale.to(weight.dtype))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """[..., in] -> [..., out], in the type of the input."""
        product = nn.functional.linear(input, self.weight.to(input.dtype)) * self.scale
        return product if self.bias is None else product + self.bias


class Float8Linear(nn.Linear):
    """A linear layer that multiplies in 8-bit floats (e4m3), weights and inputs alike.

    Each output's weights and each token have a scale. It takes half the memory of bfloat16 and
    computes about twice as fast on the GPUs that can. The class is a Linear, so that adapters
    attach to it as to any other; what they add is not rounded.
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
            output_dtype=torch.bfloat16,
        )
        product = product.to(input.dtype).view(*input.shape[:-1], -1)
        return product if self.bias is None else product + self.bias


def quantise(model: nn.Module, kind: str, device: str) -> None:
    """Replaces linear layers of a model, one after the other, each moved to the device first.

    Args:
        model: without adapters.
        kind: "int8": all linear layers; "fp8": those whose sides suit the hardware.
        device: as torch names it; all of the model in bfloat16 need not fit there.

    Raises:
        ValueError: the device has no 8-bit floats.
    """
    layer_class = {"int8": Int8Linear, "fp8": Float8Linear}[kind]
    if kind == "fp8" and torch.device(device).type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < FLOAT8_CAPABILITY:
            raise ValueError(
                "parameter QUANTIZATION: fp8 needs a GPU of compute capability "
                f"{FLOAT8_CAPABILITY}, {device} has {capability}; int8 runs on any"
            )
    # Names alone: a layer that is kept after its turn would keep its weights on the device.
    names = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        if kind == "fp8" and (layer.in_features % FLOAT8_ROW or layer.out_features % FLOAT8_ROW):
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer_class(layer.to(device)))


def _as_float8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, k] -> float8_e4m3fn [n, k] and its scales, float32 [n, 1]."""
    scale = _row_scale(rows, FLOAT8_MAX)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def _row_scale(rows: torch.Tensor, largest: float) -> torch.Tensor:
    """float32 [n, 1]: by what each row is divided to end at `largest`; never 0."""
    most = rows.float().abs().amax(dim=1, keepdim=True)
    return most.clamp(min=torch.finfo(torch.float32).tiny * largest) / largest
