"""Owns reading and checking one edit as its client asked for it, from a request's tensors."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from model_kit.errors import invalid
from model_kit.tensors import Tensors, read_text

Number = TypeVar("Number", int, float)

# Only edit_conditions reads and checks these: they decide the condition images and the prompt.
CONDITION_INPUTS = frozenset(
    {
        "PROMPT",
        "IMAGE",
        *(f"CONDITIONAL_IMAGE_{number}" for number in range(4)),
        "REFERENCE_IMAGE",
        "REFERENCE_MASK_R",
        "TASK_TYPE",
        "ANGLE",
        "BACKGROUND_PRESET",
        "INPUT_QUALITY",
        "MASK_TOOL_TYPE",
        "REGION",
    }
)
# The frontend repeats it, because it counts steps in its estimates; a contract test compares.
DEFAULT_NUM_INFERENCE_STEPS = 10
# Of one input: none is a list. Triton itself refuses one, before it copies the elements.
MAX_ELEMENTS = 1
# Small enough for a JSON reader that keeps numbers as doubles.
DRAWN_SEED_BITS = 32


@dataclass(frozen=True, eq=False)
class EditRequest:
    """What image_edit itself reads of a request; None means that the client left it open."""

    condition_inputs: Mapping[str, Sequence[bytes]]
    """`CONDITION_INPUTS` as the client sent them."""
    negative_prompt: str
    """Never empty: a single space stands for an empty one."""
    width: int | None
    """Pixels, 256..2048, as is `height`."""
    height: int | None
    num_inference_steps: int
    """1..100."""
    guidance_scale: float | None
    """0.5..20."""
    true_cfg_scale: float | None
    """0.5..15."""
    seed: int
    """0..2^63 - 1; random if the client gave none."""
    static_schedule: bool
    preview: bool
    debug: bool
    """Whether INFO has debug_info."""

    @property
    def region(self) -> str:
        """What of the picture is edited, as the client said it."""
        return self._said("REGION") or "full"

    @property
    def task_type(self) -> str:
        """The task as edit_conditions will read it, which refuses a word that is none."""
        default = "insertion" if self.has_reference_image else "removal"
        return self._said("TASK_TYPE").strip() or default

    @property
    def has_reference_image(self) -> bool:
        """Return whether the client sent a REFERENCE_IMAGE that has a byte."""
        return any(self.condition_inputs.get("REFERENCE_IMAGE", ()))

    def _said(self, name: str) -> str:
        return b"".join(self.condition_inputs.get(name, ())).decode(errors="replace")


def read_edit_request(tensors: Tensors, *, static_schedule: bool, max_bytes: int) -> EditRequest:
    """Check everything that image_edit reads itself.

    Args:
        tensors: the inputs of the request.
        static_schedule: used if ENABLE_FLOWMATCH_SCHEDULER is absent.
        max_bytes: of all BYTES inputs together; they wait in memory.

    Raises:
        CodedError: INVALID_ARGUMENT, naming the first input that is out of bounds.
    """
    sizes = {
        name: sum(len(element) for element in elements if isinstance(element, bytes))
        for name, elements in tensors.items()
    }
    if sum(sizes.values()) > max_bytes:
        largest = max(sizes, key=sizes.__getitem__)
        raise invalid(largest, f"all inputs together may hold {max_bytes} bytes at most")
    steps = _number(tensors, "NUM_INFERENCE_STEPS", 1, 100)
    seed = _number(tensors, "SEED", 0, 2**63 - 1)
    return EditRequest(
        condition_inputs={name: tensors[name] for name in CONDITION_INPUTS & tensors.keys()},
        negative_prompt=read_text(tensors, "NEGATIVE_PROMPT") or " ",
        width=_number(tensors, "WIDTH", 256, 2048),
        height=_number(tensors, "HEIGHT", 256, 2048),
        num_inference_steps=DEFAULT_NUM_INFERENCE_STEPS if steps is None else steps,
        guidance_scale=_number(tensors, "GUIDANCE_SCALE", 0.5, 20.0),
        true_cfg_scale=_number(tensors, "TRUE_CFG_SCALE", 0.5, 15.0),
        seed=secrets.randbits(DRAWN_SEED_BITS) if seed is None else seed,
        static_schedule=_flag(tensors, "ENABLE_FLOWMATCH_SCHEDULER", static_schedule),
        preview=_flag(tensors, "PREVIEW", False),
        debug=_flag(tensors, "DEBUG", True),
    )


def _number(tensors: Tensors, name: str, low: Number, high: Number) -> Number | None:
    if name not in tensors:
        return None
    value: Number = tensors[name][0]
    if not low <= value <= high:  # also true of NaN
        raise invalid(name, f"must be {low} to {high}, not {value}")
    # To the digits that FP32 holds, so that the report says 4.1 and not 4.099999904632568.
    return round(value, 6)


def _flag(tensors: Tensors, name: str, default: bool) -> bool:
    return bool(tensors[name][0]) if name in tensors else default
