from __future__ import annotations

from typing import Any

import pytest

from frontend.domain.jobs import JobEvent, JobStatus
from frontend.jobs.rules import follow_up


def event(status: str, step: int = 0, progress: float = 0.0, **fields: Any) -> JobEvent:
    return JobEvent(
        status=JobStatus(status),
        total_steps=4,
        current_step=step,
        progress=progress,
        at=0,
        **fields,
    )


@pytest.mark.parametrize(
    ("last", "allowed"),
    [
        ("queued", {"queued", "processing", "error", "cancelled"}),
        ("processing", {"queued", "processing", "done", "error", "cancelled"}),
        ("done", set()),
        ("error", set()),
        ("cancelled", set()),
    ],
)
def test_which_state_may_follow_which(last: str, allowed: set[str]) -> None:
    for status in JobStatus:
        assert (follow_up(event(last), event(status)) is not None) == (status in allowed)


def test_steps_and_progress_never_fall() -> None:
    last = event("processing", 3, 0.7)
    for status in ("processing", "error", "cancelled"):
        following = follow_up(last, event(status, 1, 0.2))
        assert following is not None
        assert (following.current_step, following.progress) == (3, 0.7)


def test_progress_is_one_at_done_and_only_there() -> None:
    before = follow_up(event("processing"), event("processing", 4, 1.0))
    assert before is not None
    assert before.progress < 1
    done = follow_up(before, event("done"))
    assert done is not None
    assert (done.current_step, done.progress) == (4, 1.0)


@pytest.mark.parametrize("status", ["queued", "processing", "done", "error", "cancelled"])
def test_sizes_stay_known(status: str) -> None:
    last = event("processing", size=(4000, 3000), computed_sizes=((512, 384),))
    following = follow_up(last, event(status))
    assert following is not None
    computed = None if status == "queued" else ((512, 384),)  # another Triton may have another plan
    assert (following.size, following.computed_sizes) == ((4000, 3000), computed)
    again = follow_up(last, event("processing", size=(8, 8), computed_sizes=((64, 64),)))
    assert again is not None
    assert (again.size, again.computed_sizes) == ((8, 8), ((64, 64),))
