"""Heads start out looking where they are told: at one place of each picture, or everywhere."""

from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from export import attention_start

SIDE, PICTURES, HEADS, HEAD_DIM = 16, 4, 6, 32


@pytest.fixture(scope="module")
def transformer() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=2,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            axes_dims_rope=(8, 12, 12),
            joint_attention_dim=16,
        )
    attention_start.start(transformer)
    return transformer


@pytest.fixture(scope="module")
def scores(transformer: Any) -> torch.Tensor:
    """Attention of the first picture's tokens, [head, token, picture, row, column]."""
    attention = transformer.transformer_blocks[1].attn
    tokens = PICTURES * SIDE * SIDE
    rotation, _ = transformer.pos_embed([[(1, SIDE, SIDE)] * PICTURES], max_txt_seq_len=1)
    torch.manual_seed(1)
    states = torch.randn(1, tokens, HEADS * HEAD_DIM)
    with torch.no_grad():
        query, key = (
            apply_rotary_emb_qwen(
                norm(project(states).unflatten(-1, (HEADS, HEAD_DIM))), rotation, use_real=False
            )
            for norm, project in (
                (attention.norm_q, attention.to_q),
                (attention.norm_k, attention.to_k),
            )
        )
        logits = torch.einsum("nqhd,nkhd->hqk", query, key) / HEAD_DIM**0.5
        weights = logits.softmax(dim=-1)[:, : SIDE * SIDE]
    shaped: torch.Tensor = weights.view(HEADS, SIDE * SIDE, PICTURES, SIDE, SIDE)
    return shaped


@pytest.mark.parametrize("head", range(PICTURES))
def test_a_head_looks_at_the_same_place_of_its_picture(scores: torch.Tensor, head: int) -> None:
    looked = scores[head].flatten(2)  # [token, picture, place]
    same = looked[:, head].diagonal()
    assert same.mean() > 0.4
    assert (
        looked.flatten(1).argmax(dim=1) == head * SIDE**2 + torch.arange(SIDE**2)
    ).float().mean() > 0.95


@pytest.mark.parametrize("head", range(PICTURES, HEADS))
def test_the_other_heads_look_everywhere(scores: torch.Tensor, head: int) -> None:
    assert scores[head].flatten(1).max() < 0.1
    assert scores[head].sum(dim=(2, 3)).min() > 0.05  # of any one picture


def test_gates_are_open(transformer: Any) -> None:
    for block in transformer.transformer_blocks:
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            shift, scale, gate, *_ = modulation.bias.view(6, -1)
            assert (shift == 0).all()
            assert (scale == 0).all()
            assert (gate == 1).all()
