"""Owns which event may follow which in a job's log."""

from __future__ import annotations

from dataclasses import replace

from frontend.domain.jobs import JobEvent, JobStatus

# Maximum progress of a job that is not done.
MAX_UNFINISHED_PROGRESS = 0.999
CANCELLED_TEXT = "Generation cancelled by user"

_ENDS = {JobStatus.ERROR, JobStatus.CANCELLED}
_SUCCESSORS: dict[JobStatus, set[JobStatus]] = {
    JobStatus.QUEUED: {JobStatus.QUEUED, JobStatus.PROCESSING, *_ENDS},
    # Back to the queue, because what ran the job was lost.
    JobStatus.PROCESSING: {JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.DONE, *_ENDS},
    JobStatus.DONE: set(),
    JobStatus.ERROR: set(),
    JobStatus.CANCELLED: set(),
}


def follow_up(last: JobEvent, event: JobEvent) -> JobEvent | None:
    """Return `event` as it follows `last` in a log, or None if it must not.

    Nothing follows a final event. Steps and progress never fall, and progress is 1 exactly at
    `done`. Restarts are counted in the log. Sizes stay known.
    """
    if event.status not in _SUCCESSORS[last.status]:
        return None
    again = last.status is JobStatus.PROCESSING and event.status is JobStatus.QUEUED
    event = replace(
        event,
        restarts=last.restarts + again,
        size=event.size or last.size,
        # Another Triton may have another plan.
        computed_sizes=event.computed_sizes or (None if again else last.computed_sizes),
    )
    if event.status is JobStatus.DONE:
        return replace(event, current_step=event.total_steps, progress=1.0)
    progress = max(last.progress, min(event.progress, MAX_UNFINISHED_PROGRESS))
    current_step = max(last.current_step, event.current_step)
    return replace(event, current_step=current_step, progress=progress)


def waiting_again(last: JobEvent, at: float) -> JobEvent | None:
    """Return what tells that a job was lost and waits again; None if its log says that it waits.

    Args:
        last: the newest event.
        at: seconds since 1970.
    """
    if last.status is not JobStatus.PROCESSING:
        return None
    again = JobEvent(status=JobStatus.QUEUED, total_steps=last.total_steps, at=at)
    return follow_up(last, again)


def end_of(last: JobEvent, status: JobStatus, error: str, at: float) -> JobEvent | None:
    """Return what ends a job that is not done; None if it has ended.

    Args:
        last: the newest event.
        status: `error` or `cancelled`.
        error: why.
        at: seconds since 1970.
    """
    end = JobEvent(status=status, total_steps=last.total_steps, error=error, at=at)
    return follow_up(last, end)
