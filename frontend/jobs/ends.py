"""Owns the line in the log of a job that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from frontend.domain.jobs import JobStatus

if TYPE_CHECKING:
    from frontend.domain.edits import Size
    from frontend.domain.jobs import JobEvent
    from frontend.jobs.store import Freed

log = structlog.get_logger()


def log_end(
    job_id: str,
    status: JobStatus,
    error: str | None,
    *,
    at_fault: bool,
    steps: int,
    size: Size | None,
    computed_sizes: tuple[Size, ...] | None,
    **more: object,
) -> None:
    """Log a job's end, at level error if the server or the model is at fault."""
    write = log.error if at_fault else log.info
    write(
        "job_ended",
        task_id=job_id,
        status=status,
        error=error,
        steps=steps,
        size=size,
        computed_sizes=computed_sizes,
        **more,
    )


def log_ended(job_id: str, end: JobEvent, **more: object) -> None:
    """Log the end of a job that no process runs, as its last event tells it."""
    log_end(
        job_id,
        end.status,
        end.error,
        at_fault=end.status is JobStatus.ERROR,
        steps=end.total_steps,
        size=end.size,
        computed_sizes=end.computed_sizes,
        **more,
    )


def log_freed(freed: Freed) -> None:
    """Log the end of a job that was lost or given back, unless it waits again."""
    if freed.end is not None:
        log_ended(freed.job_id, freed.end, task_type=freed.task_type)
