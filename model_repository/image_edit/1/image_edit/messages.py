"""What a job tells its client: a closed set, of which exactly one terminal message ends it."""

from dataclasses import dataclass
from enum import StrEnum

from model_kit.errors import CodedError


class Stage(StrEnum):
    """Where an edit is, in order."""

    LOADING = "loading"  # accepted, waiting for its turn
    CONDITIONING = "conditioning"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    DONE = "done"


@dataclass(frozen=True)
class Progressed:
    """A stage began, or in `DENOISING` a step ended."""

    stage: Stage
    step: int
    """Steps finished."""
    total_steps: int
    progress: float
    """0..1, never less than in the message before."""
    preview: bytes = b""
    """WebP of the picture as predicted now, where the request asked for it."""


@dataclass(frozen=True)
class Succeeded:
    """The edit ended in a picture."""

    total_steps: int
    image: bytes
    """PNG, RGB."""
    info: str
    """JSON object, see edit_report."""


@dataclass(frozen=True)
class Answered:
    """A CANCEL request was carried out."""

    info: str
    """JSON object: what was cancelled, and how the model stands."""


@dataclass(frozen=True)
class Failed:
    """The request was refused, cancelled, or ended in an error."""

    error: CodedError


Terminal = Succeeded | Answered | Failed
Message = Progressed | Terminal
