"""Owns the words of a job: its states and the entries of its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.domain.edits import Size, Stage


MAX_NUMBER = 2**63 - 1
"""The largest number that every store counts with."""


class JobStatus(StrEnum):
    """Where a job is; `done`, `error` and `cancelled` are final."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in (JobStatus.DONE, JobStatus.ERROR, JobStatus.CANCELLED)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEvent:
    """One entry of a job's log: everything that a client may know about the job then."""

    status: JobStatus
    """The state of the job."""
    total_steps: int
    """Denoising steps of the job."""
    current_step: int = 0
    """Steps finished."""
    progress: float = 0.0
    """0..1, never falling; 1 exactly when done."""
    stage: Stage | None = None
    """What the model is doing; None before Triton has the job, and at an end other than `done`."""
    error: str | None = None
    """Why the job ended; only for `error` and `cancelled`."""
    queue_position: int | None = None
    """1 for the next job to start; None unless waiting."""
    size: Size | None = None
    """Of the answer, if known."""
    computed_sizes: tuple[Size, ...] | None = None
    """Of the parts that the model computes, once it has said so."""
    engine_taken: bool = False
    """Whether the job waits because the engine still works on a job that has ended."""
    triton_down: bool = False
    """Whether the job waits because every Triton is down."""
    triton_loading: str | None = None
    """What Triton is loading, in words, if it has written that."""
    eta_seconds: float | None = None
    """Seconds from `at` to the job's expected end, if known."""
    restarts: int = 0
    """How often the job was begun anew, because what ran it was lost."""
    preview: bytes = field(default=b"", repr=False)
    """A small WebP of the picture so far, or empty."""
    at: float
    """Seconds since 1970."""

    @property
    def waits(self) -> bool:
        """Whether other jobs decide when this one goes on."""
        before_engine = self.stage is not None and self.stage.before_engine
        return self.status is JobStatus.QUEUED or before_engine
