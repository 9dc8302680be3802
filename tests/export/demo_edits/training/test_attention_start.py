"""Before any training, heads look at a place, at a picture, and at the prompt."""

from typing import Any

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from export.demo_edits.training import attention_start

SIDE, PICTURES, HEADS, HEAD_DIM, WORDS = 16, 4, 8, 32, 90


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
    """Attention of the first picture's tokens, [head, token, key]: the words, then the pictures."""
    attention = transformer.transformer_blocks[1].attn
    rotation, words = transformer.pos_embed([[(1, SIDE, SIDE)] * PICTURES], max_txt_seq_len=WORDS)
    torch.manual_seed(1)
    states = torch.randn(1, PICTURES * SIDE * SIDE, HEADS * HEAD_DIM)
    text = torch.randn(1, WORDS, HEADS * HEAD_DIM)

    def turned(project: Any, norm: Any, tokens: torch.Tensor, freqs: Any) -> torch.Tensor:
        heads = norm(project(tokens).unflatten(-1, (HEADS, HEAD_DIM)))
        rotated: torch.Tensor = apply_rotary_emb_qwen(heads, freqs, use_real=False)
        return rotated

    with torch.no_grad():
        query = turned(attention.to_q, attention.norm_q, states, rotation)[:, : SIDE * SIDE]
        seen = turned(attention.to_k, attention.norm_k, states, rotation)
        read = turned(attention.add_k_proj, attention.norm_added_k, text, words)
        logits = torch.einsum("nqhd,nkhd->hqk", query, torch.cat([read, seen], dim=1))
        weights: torch.Tensor = (logits / HEAD_DIM**0.5).softmax(dim=-1)
    return weights


@pytest.mark.parametrize("head", range(PICTURES))
def test_a_head_looks_at_the_same_place_of_its_picture(scores: torch.Tensor, head: int) -> None:
    asked = WORDS + head * SIDE**2 + torch.arange(SIDE**2)
    assert scores[head].gather(1, asked[:, None]).mean() > 0.4
    assert (scores[head].argmax(dim=1) == asked).float().mean() > 0.95


@pytest.mark.parametrize("head", range(PICTURES, 2 * PICTURES - 1))
def test_a_head_looks_at_the_whole_of_its_picture(scores: torch.Tensor, head: int) -> None:
    looked = scores[head][:, WORDS:].view(-1, PICTURES, SIDE**2)
    assert looked[:, head - PICTURES + 1].sum(dim=1).min() > 0.5
    assert looked.max() < 0.1


def test_a_head_reads_the_prompt(scores: torch.Tensor) -> None:
    assert scores[-1][:, :WORDS].sum(dim=1).min() > 0.5
    assert scores[:-1, :, :WORDS].sum(dim=2).max() < 0.2


def test_gates_are_open(transformer: Any) -> None:
    for block in transformer.transformer_blocks:
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            shift, scale, gate, *_ = modulation.bias.view(6, -1)
            assert (shift == 0).all()
            assert (scale == 0).all()
            assert (gate == 1).all()
