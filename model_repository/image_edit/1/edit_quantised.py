"""Linear layers that keep their weights in 8 bits and compute in the type of their input."""

import torch
from torch import nn


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
        scale = weight.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        rounded = (weight.float() / scale[:, None]).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("scale", scale.to(weight.dtype))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """[..., in] -> [..., out], in the type of the input."""
        product = nn.functional.linear(input, self.weight.to(input.dtype)) * self.scale
        return product if self.bias is None else product + self.bias


def quantise(model: nn.Module, device: str) -> None:
    """Replaces all linear layers of a model, one after the other, each moved to the device first.

    Args:
        model: without adapters.
        device: as torch names it; all of the model in bfloat16 need not fit there.
    """
    linears = [(name, layer) for name, layer in model.named_modules() if type(layer) is nn.Linear]
    for name, layer in linears:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, Int8Linear(layer.to(device)))
