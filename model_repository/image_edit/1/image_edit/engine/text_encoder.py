"""Owns sparing the text encoder what an edit does not need: words, and pictures just encoded."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


def drop_word_head(text_encoder: Any) -> None:
    """Free the weights that turn the text encoder's last hidden states into words.

    An edit reads only the hidden states. The weights take 1.0 GiB in bfloat16.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration; changed in place.
    """
    text_encoder.lm_head = nn.Identity()


def remember_last_pictures(text_encoder: Any) -> None:
    """Make the text encoder keep the features of the last pictures, and use them again.

    Both prompts of a guided edit have the same pictures, and often the next edit has them too.
    The pictures' values are compared, so edits that take turns never get each other's features.

    Args:
        text_encoder: Qwen2_5_VLForConditionalGeneration; changed in place.
    """
    vision = text_encoder.model.visual
    vision.forward = _LastPictures(vision.forward)


class _LastPictures:
    """Calls the vision tower, unless the pictures are those of the last call."""

    def __init__(self, look: Any) -> None:
        self._look = look
        self._seen: _Seen | None = None

    def __call__(self, pixels: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        """Answer as the vision tower's forward does, as far as the text encoder reads it."""
        seen = self._seen
        if seen is None or not (
            torch.equal(seen.grid_thw, grid_thw) and torch.equal(seen.pixels, pixels)
        ):
            # Freed first, so that memory never holds two.
            self._seen = seen = None
            answer = self._look(pixels, grid_thw=grid_thw, **kwargs)
            self._seen = seen = _Seen(pixels, grid_thw, type(answer), answer.pooler_output)
        # A new answer each time, because the text encoder splits the field in place.
        return seen.kind(pooler_output=seen.features)


@dataclass(frozen=True, eq=False)
class _Seen:
    pixels: torch.Tensor
    """[patches, values]"""
    grid_thw: torch.Tensor
    """[pictures, 3]: frames, rows and columns of patches."""
    kind: Any
    """Class of the answer."""
    features: torch.Tensor
    """[tokens, dim]"""
