"""Owns which event may follow which in a job's log."""

from __future__ import annotations

from dataclasses import replace

from frontend.domain.jobs import JobEvent, JobStatus

# Maximum progress of a job that is not done.
MAX_UNFINISHED_PROGRESS = 0.999

_ENDS = {JobStatus.ERROR, JobStatus.CANCELLED}
_SUCCESSORS: dict[JobStatus, set[JobStatus]] = {
    JobStatus.QUEUED: {JobStatus.QUEUED, JobStatus.PROCESSING, *_ENDS},
    JobStatus.PROCESSING: {JobStatus.PROCESSING, JobStatus.DONE, *_ENDS},
    JobStatus.DONE: set(),
    JobStatus.ERROR: set(),
    JobStatus.CANCELLED: set(),
}


def follow_up(last: JobEvent, event: JobEvent) -> JobEvent | None:
    """Return `event` as it follows `last` in a log, or None if it must not.

    Nothing follows a final event. Steps and progress never fall, and progress is 1 exactly at
    `done`.
    """
    if event.status not in _SUCCESSORS[last.status]:
        return None
    if event.status is JobStatus.DONE:
        return replace(event, current_step=event.total_steps, progress=1.0)
    progress = max(last.progress, min(event.progress, MAX_UNFINISHED_PROGRESS))
    current_step = max(last.current_step, event.current_step)
    return replace(event, current_step=current_step, progress=progress)
