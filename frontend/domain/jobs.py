"""Owns the words of a job: its states and the entries of its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.domain.edits import Stage


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
    """One entry of a job's log: everything that a client may know about the job then.

    Attributes:
        status: the job's state.
        total_steps: denoising steps of the job.
        current_step: steps finished.
        progress: 0..1, never falling; 1 exactly when done.
        stage: what the model is doing; None before Triton has the job and after its end.
        error: why the job ended, of `error` and `cancelled` only.
        queue_position: 1 for the next job to start; None unless waiting.
        triton_down: whether it waits because Triton cannot run the model now.
        triton_loading: what Triton is doing to run it again, where it tells.
        eta_seconds: seconds from `at` to the job's expected end, where known.
        preview: a small WebP, or empty.
        at: time.time() of the event.
    """

    status: JobStatus
    total_steps: int
    current_step: int = 0
    progress: float = 0.0
    stage: Stage | None = None
    error: str | None = None
    queue_position: int | None = None
    triton_down: bool = False
    triton_loading: str | None = None
    eta_seconds: float | None = None
    preview: bytes = field(default=b"", repr=False)
    at: float
