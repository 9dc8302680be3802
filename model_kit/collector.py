"""Owns keeping Python's garbage collector off what stays until the process ends."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def making_what_stays() -> Iterator[None]:
    """Let the collector rest while the body loads things, and pass over them ever after.

    Importing torch, transformers and diffusers makes half a million objects, none of them
    garbage. The collector would walk over them again and again while they grow (2 of 10 s), in
    the midst of an edit (0.3 s each time), and when the process ends (2 s). In a process that
    forks it would also copy their pages into each child.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
