"""Owns which Triton makes the masks of a picture: rendezvous hashing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def chosen(addresses: Iterable[str], image_id: str) -> str:
    """Return the Triton for a picture: the one with the greatest hash of address and picture.

    All processes agree, whatever the order of their lists. If one of n Tritons comes or goes,
    about 1/n of the pictures move.

    Args:
        addresses: host:port of each Triton that is ready; at least one. The same Triton must have
            the same address everywhere.
        image_id: SHA-256 of the picture's file, hexadecimal.
    """
    return max(addresses, key=lambda each: hashlib.sha256((each + image_id).encode()).digest())
