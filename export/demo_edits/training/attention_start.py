"""Owns where the attention heads of the demo's transformer look before it is trained.

A transformer with random queries needs thousands of steps to find out that it should copy a place
from the same place of another picture. Here each head starts with that knowledge. A constant query
and key, turned by the rotary embedding, meet where two tokens have the wanted distance.
"""

import math
from typing import Any

import torch
from torch import Tensor

# One output and up to three conditions.
PICTURES = 4
# Fractions of a query's squared length, by axis, for the two fastest frequencies. The fastest tells
# neighbours apart. The second tells places apart that the first confuses, 2 pi tokens away.
FRAME_FRACTIONS = (0.22, 0.03)
PLACE_FRACTIONS = (0.2, 0.175)
# The fraction for the fastest frequency alone, in a head that looks at a whole picture.
PICTURE_FRACTION = 0.25
# Size of the constant relative to what a token adds to the constant.
CONSTANT = 3.0
# Weight of the norms: scores of the same place and of its neighbours differ by about 3.
SHARPNESS = 2.5
# At first, timesteps scale the normalised tokens by less than random weights would.
MODULATION = 0.1
THETA = 10_000.0


@torch.no_grad()
def start(transformer: Any) -> None:
    """Set the queries, keys and gates of all blocks; everything else keeps its random weights.

    In each block, the first four heads look at the same place: in the token's own picture and in
    the first, second and third picture after it. The next three look at the whole of the first,
    second and third picture after it. The others read the prompt.

    Args:
        transformer: a QwenImageTransformer2DModel with more than seven heads.
    """
    config = transformer.config
    fractions, frequencies = _axes(config.axes_dims_rope)
    slow = (fractions == 0) / (fractions == 0).sum()
    whole = (1 - PICTURE_FRACTION) * slow
    whole[0] = PICTURE_FRACTION
    size = CONSTANT * config.attention_head_dim**0.5
    still = torch.zeros_like(slow)
    queries, keys, prompt_keys = [], [], []
    for head in range(config.num_attention_heads):
        if head < PICTURES:
            looked, distance, reads = fractions, head, False
        elif head < 2 * PICTURES - 1:
            looked, distance, reads = whole, head - PICTURES + 1, False
        else:
            looked, distance, reads = slow, 0, True
        length = size * looked.sqrt()
        constant, nothing = torch.polar(length, still), torch.polar(still, still)
        queries.append(torch.polar(length, frequencies * distance))
        keys.append(nothing if reads else constant)
        prompt_keys.append(constant if reads else nothing)
    sharpness = torch.where(fractions > 0, SHARPNESS, 1.0).repeat_interleave(2)
    for block in transformer.transformer_blocks:
        attention = block.attn
        attention.to_q.bias.copy_(_as_channels(queries))
        attention.to_k.bias.copy_(_as_channels(keys))
        attention.add_k_proj.bias.copy_(_as_channels(prompt_keys))
        attention.norm_q.weight.copy_(sharpness)
        attention.norm_k.weight.copy_(sharpness)
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            modulation.weight.mul_(MODULATION)
            # The bias holds shift, scale and gate for attention, then for the MLP. Gates are open.
            modulation.bias.copy_(
                torch.tensor([0.0, 0.0, 1.0] * 2).repeat_interleave(len(modulation.bias) // 6)
            )


def _axes(dims: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return the fraction of the constant and the frequency for each pair of a head's channels."""
    fractions, frequencies = [], []
    for axis, dim in enumerate(dims):
        pairs = dim // 2
        given = FRAME_FRACTIONS if axis == 0 else PLACE_FRACTIONS
        fractions += [*given, *[0.0] * (pairs - len(given))]
        frequencies += [
            math.pow(THETA, -2 * pair / dim) if axis == 0 else 0.0 for pair in range(pairs)
        ]
    return torch.tensor(fractions), torch.tensor(frequencies)


def _as_channels(heads: list[Tensor]) -> Tensor:
    return torch.view_as_real(torch.stack(heads)).flatten()
