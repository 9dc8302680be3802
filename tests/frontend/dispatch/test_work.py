from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from frontend.dispatch.lanes import Lanes, LiveJob
from frontend.dispatch.patience import Patience
from frontend.dispatch.work import Work
from frontend.errors import ClosingError, ServingError
from frontend.settings import Settings

if TYPE_CHECKING:
    from frontend.jobs.sql_store import SqlStore


class ObedientClient:
    """Answers every cancel at once."""

    async def cancel_edit(self, job_id: str) -> None:
        pass


class Stream:
    """Takes note of being cut."""

    def __init__(self) -> None:
        self.cuts: list[ServingError] = []

    def cut(self, reason: ServingError) -> None:
        self.cuts.append(reason)


@pytest.mark.parametrize(
    ("leaving", "ended", "cut"),
    [
        (False, False, True),  # the model has not ended it
        (True, False, False),  # its end waits for the store
        (True, True, True),  # its end is written, and the model does not end its stream
    ],
)
async def test_only_a_job_that_the_model_has_is_cut(leaving: bool, ended: bool, cut: bool) -> None:
    clock = asyncio.get_running_loop().time
    lanes = Lanes(1, 1, clock)
    watch = SimpleNamespace(client=ObedientClient())
    work = Work(
        Settings(cancel_timeout_s=10),
        cast("SqlStore", None),
        lanes,
        {lanes.all[0]: cast("Any", watch)},
        Patience(),
        clock,
        clock,
        lambda: None,
        lambda: asyncio.sleep(0),
    )
    job = LiveJob("a", 4, 1, request_id="a.1", leaving=leaving)
    job.log = cast("Any", SimpleNamespace(ended=ended))
    job.stream = cast("Any", stream := Stream())
    lanes.start(job, lanes.all[0])
    job.accepted.set()
    reason = ClosingError()
    with capture_logs() as lines:
        await work.end_early(job, reason, 0.01)
    assert stream.cuts == ([reason] if cut else [])
    assert [line["event"] for line in lines] == (["cancel_unanswered"] if cut else [])
