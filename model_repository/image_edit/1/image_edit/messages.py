"""Owns the messages of a job to its client: a closed set; exactly one terminal message ends it."""

from dataclasses import dataclass
from enum import StrEnum

from model_kit.errors import CodedError


class Stage(StrEnum):
    """The stages of an edit, in order."""

    LOADING = "loading"  # accepted, waiting for its turn
    CONDITIONING = "conditioning"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    DONE = "done"


@dataclass(frozen=True)
class Progressed:
    """A stage began or, in `DENOISING`, a step ended."""

    stage: Stage
    step: int
    """Steps finished."""
    total_steps: int
    progress: float
    """0..1, never less than in the message before."""
    preview: bytes = b""
    """WebP of the picture as predicted now; empty unless the client asked for it."""
    info: str = ""
    """JSON object of what will be computed; see report.py. Only ENCODING has it."""


@dataclass(frozen=True)
class Succeeded:
    """The edit ended in a picture."""

    total_steps: int
    image: bytes
    """PNG, RGB."""
    info: str
    """JSON object; see report.py."""


@dataclass(frozen=True)
class Answered:
    """The model has carried out a CANCEL request."""

    info: str
    """JSON object: what was cancelled, and the state of the model."""


@dataclass(frozen=True)
class Failed:
    """The model refused the request, the client cancelled it, or it ended in an error."""

    error: CodedError


Terminal = Succeeded | Answered | Failed
Message = Progressed | Terminal
