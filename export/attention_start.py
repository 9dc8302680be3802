"""Owns where the attention heads of the demo's transformer look before it is trained.

From random queries it takes a transformer thousands of steps to find that what it should draw at
a place stands at the same place of another picture. Here each head is told: a constant query and
key, turned by the rotary embedding, meet where the distance between two tokens is what was asked.
"""

import math
from typing import Any

import torch
from torch import Tensor

# The output and up to three conditions: what follows is left to the heads that look everywhere.
PICTURES = 4
# Of the squared length of a query, by axis: its two fastest frequencies. The fastest tells
# neighbours apart, the second places that the first confuses, 2 pi tokens away.
FRAME_SHARES = (0.22, 0.03)
PLACE_SHARES = (0.2, 0.175)
# Size of the constant relative to what a token adds to it.
CONSTANT = 3.0
# Of the norms' weights: scores between the same place and its neighbours differ by about 3.
SHARPNESS = 2.5
# Timesteps scale the normalised tokens by less at first than random weights would.
MODULATION = 0.1
THETA = 10_000.0


@torch.no_grad()
def start(transformer: Any) -> None:
    """Sets the queries, keys and gates of all blocks; everything else keeps its random weights.

    Of each block's heads the first four look at the same place, in the token's own picture and
    in the first, second and third after it; the others look everywhere alike.

    Args:
        transformer: a QwenImageTransformer2DModel with more than four heads.
    """
    config = transformer.config
    shares, frequencies = _axes(config.axes_dims_rope)
    queries, keys = [], []
    elsewhere = (shares == 0).float()
    for head in range(config.num_attention_heads):
        if head < PICTURES:
            length = CONSTANT * (shares * config.attention_head_dim).sqrt()
            queries.append(torch.polar(length, frequencies * head))
            keys.append(torch.polar(length, torch.zeros_like(length)))
        else:
            length = CONSTANT * (elsewhere * config.attention_head_dim / elsewhere.sum()).sqrt()
            queries.append(torch.polar(length, torch.zeros_like(length)))
            keys.append(queries[-1])
    sharpness = torch.where(shares > 0, SHARPNESS, 1.0).repeat_interleave(2)
    for block in transformer.transformer_blocks:
        attention = block.attn
        attention.to_q.bias.copy_(_as_channels(queries))
        attention.to_k.bias.copy_(_as_channels(keys))
        attention.norm_q.weight.copy_(sharpness)
        attention.norm_k.weight.copy_(sharpness)
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            modulation.weight.mul_(MODULATION)
            # Shift, scale and gate, for attention and then for the MLP: open gates.
            modulation.bias.copy_(
                torch.tensor([0.0, 0.0, 1.0] * 2).repeat_interleave(len(modulation.bias) // 6)
            )


def _axes(dims: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """For each pair of a head's channels: its share of the constant, its frequency in frames."""
    shares, frequencies = [], []
    for axis, dim in enumerate(dims):
        pairs = dim // 2
        given = FRAME_SHARES if axis == 0 else PLACE_SHARES
        shares += [*given, *[0.0] * (pairs - len(given))]
        frequencies += [
            math.pow(THETA, -2 * pair / dim) if axis == 0 else 0.0 for pair in range(pairs)
        ]
    return torch.tensor(shares), torch.tensor(frequencies)


def _as_channels(heads: list[Tensor]) -> Tensor:
    return torch.view_as_real(torch.stack(heads)).flatten()
