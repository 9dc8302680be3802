"""Owns what edit_conditions answers for one edit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The condition images of an edit and what belongs to them."""

    images: Pixels
    """RGB, uint8 [n, height, width, 3], in model order."""
    source: Pixels
    """The processed input, RGB, uint8 [height, width, 3]."""
    composite_mask: Pixels | None
    """uint8 [height, width], 255 = generated, 0 = source; only in the two-source flow."""
    prompt: str
    task_type: str
    debug_info: dict[str, Any]
    """The keys of INFO's debug_info that conditioning knows."""
