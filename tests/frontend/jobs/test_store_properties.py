"""Drives a store with everything that can happen to jobs, in any order, beside a small model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from frontend.domain.edits import EditResult
from frontend.domain.jobs import JobStatus
from frontend.errors import UnavailableError
from frontend.jobs.rules import follow_up
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.store import MAX_ATTEMPTS, Claim, Key
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.samples import (
    LEASE_S,
    TYPES,
    created,
    event,
    reaped,
    result,
    seqs,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from frontend.domain.jobs import JobEvent
    from tests.frontend.jobs.conftest import Connect

BOUNDS = Bounds(10**7, waiting=6)


@dataclass(eq=False)
class Model:
    """What is known of one job."""

    log: list[JobEvent]
    attempt: int = 0
    losses: int = 0
    held: bool = False
    overdue: bool = False
    """Whether its lease is over."""
    cancel: bool = False
    result: bytes | None = None

    @property
    def ended(self) -> bool:
        return self.log[-1].status.terminal

    @property
    def claimable(self) -> bool:
        return not (self.held or self.ended or self.cancel)


@dataclass(eq=False)
class Hold:
    """A claim, which may have been lost since."""

    claim: Claim
    seq: int = 1


class JobLife(RuleBasedStateMachine):
    """Create, claim, step, end, cancel, lose, reap, close and open, by two processes."""

    jobs = Bundle("jobs")
    holds = Bundle("holds")

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.connect = connect
        self.stores = [self.do(self.opened()) for _ in range(2)]
        self.model: dict[str, Model] = {}

    async def opened(self) -> SqlStore:
        return SqlStore(await self.connect(), BOUNDS, 3600)

    def teardown(self) -> None:
        for store in self.stores:
            self.do(store.close())
        self.runner.close()

    def do(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    def holds_still(self, hold: Hold) -> bool:
        model = self.model[hold.claim.job_id]
        return model.held and model.attempt == hold.claim.attempt

    def freed(self, model: Model, counts: bool) -> None:
        model.held = model.overdue = False
        model.losses += counts
        last = model.log[-1]
        if model.cancel:
            self.log(model, event("cancelled"))
        elif model.losses >= MAX_ATTEMPTS:
            self.log(model, event("error"))
        elif last.status is JobStatus.PROCESSING:
            self.log(model, event("queued"))

    @staticmethod
    def log(model: Model, new: JobEvent) -> None:
        accepted = follow_up(model.log[-1], new)
        assert accepted is not None
        model.log.append(accepted)

    @rule(target=jobs, store=st.integers(0, 1), size=st.integers(0, 3000))
    def create(self, store: int, size: int) -> str:
        job_id = f"job{len(self.model)}"
        full = sum(not (model.held or model.ended) for model in self.model.values()) >= 6
        try:
            self.do(created(self.stores[store], job_id, Key(job_id, b"d"), image=bytes(size)))
        except UnavailableError:
            assert full
            return next(iter(self.model))
        assert not full
        self.model[job_id] = Model([event("queued")])
        return job_id

    @rule(job_id=jobs, store=st.integers(0, 1))
    def create_again(self, job_id: str, store: int) -> None:
        again = created(self.stores[store], "another", Key(job_id, b"d"))
        assert self.do(again) == job_id

    @rule(target=holds, store=st.integers(0, 1), lease=st.booleans())
    def claim(self, store: int, lease: bool) -> Hold | None:
        found = self.do(self.stores[store].claim(f"w{store}", TYPES, LEASE_S if lease else -1))
        first = next((job_id for job_id, model in self.model.items() if model.claimable), None)
        if found is None:
            assert first is None
            return None
        model = self.model[found.job_id]
        assert found.job_id == first
        model.attempt += 1
        model.held, model.overdue = True, not lease
        assert (found.attempt, found.last[0]) == (model.attempt, len(model.log))
        return Hold(found, found.last[0])

    @rule(hold=holds, store=st.integers(0, 1), number=st.integers(0, 4), skip=st.integers(0, 1))
    def append(self, hold: Hold | None, store: int, number: int, skip: int) -> None:
        if hold is None:
            return
        model = self.model[hold.claim.job_id]
        if (new := follow_up(model.log[-1], step(number))) is None:
            new = step(number)
        held = self.holds_still(hold) and not skip
        seq = (len(model.log) if self.holds_still(hold) else hold.seq) + 1 + skip
        assert self.do(self.stores[store].append(hold.claim, seq, new)) == held
        if held:
            self.log(model, new)

    @rule(hold=holds, store=st.integers(0, 1), size=st.integers(1, 3000))
    def finish(self, hold: Hold | None, store: int, size: int) -> None:
        if hold is None:
            return
        model = self.model[hold.claim.job_id]
        held = self.holds_still(hold)
        if held and model.log[-1].status is JobStatus.QUEUED:
            return  # no worker ends a job as done that it has not begun
        done = event("done", 4, 1.0)
        seq = (len(model.log) if held else hold.seq) + 1
        result = EditResult(bytes(size), b"{}")
        wins = held and not model.cancel
        assert self.do(self.stores[store].end(hold.claim, seq, done, result)) == wins
        if held and model.cancel:
            self.log(model, event("cancelled"))
            model.held = False
        elif held:
            self.log(model, done)
            model.held, model.overdue, model.result = False, False, bytes(size)

    @rule(hold=holds, store=st.integers(0, 1), counts=st.booleans())
    def give_back(self, hold: Hold | None, store: int, counts: bool) -> None:
        if hold is None:
            return
        held = self.holds_still(hold)
        lost = "500: lost" if counts else None
        assert bool(self.do(self.stores[store].give_back(hold.claim, lost))) == held
        if held:
            self.freed(self.model[hold.claim.job_id], counts)

    @rule(hold=holds, store=st.integers(0, 1))
    def renew(self, hold: Hold | None, store: int) -> None:
        if hold is None:
            return
        renewed = self.do(self.stores[store].renew([hold.claim], LEASE_S))
        assert bool(renewed) == self.holds_still(hold)
        for held in renewed:
            model = self.model[held.job_id]
            assert (held.attempt, held.cancel_asked) == (model.attempt, model.cancel)
            model.overdue = False

    @rule(store=st.integers(0, 1))
    def reap(self, store: int) -> None:
        overdue = [job_id for job_id, model in self.model.items() if model.overdue]
        assert sorted(self.do(reaped(self.stores[store]))) == sorted(overdue)
        for job_id in overdue:
            self.freed(self.model[job_id], counts=True)

    @rule(job_id=jobs, store=st.integers(0, 1))
    def ask_cancel(self, job_id: str, store: int) -> None:
        model = self.model[job_id]
        assert self.do(self.stores[store].ask_cancel(job_id)) == model.log[-1].status
        model.cancel |= not model.ended

    @rule(job_id=jobs, store=st.integers(0, 1))
    def end_waiting(self, job_id: str, store: int) -> None:
        model = self.model[job_id]
        waits = not (model.held or model.ended)
        ended = self.stores[store].end_waiting(job_id, JobStatus.CANCELLED, "")
        assert self.do(ended) == waits
        if waits:
            self.log(model, event("cancelled"))

    @rule(store=st.integers(0, 1))
    def restart(self, store: int) -> None:
        self.do(self.stores[store].close())
        self.stores[store] = self.do(self.opened())

    @invariant()
    def logs_are_as_the_model_has_them(self) -> None:
        for job_id, model in self.model.items():
            entries = self.do(self.stores[0].read(job_id))
            assert seqs(entries) == list(range(1, len(model.log) + 1))
            for (_, found), known in zip(entries, model.log, strict=True):
                assert (found.status, found.current_step, found.progress, found.restarts) == (
                    known.status,
                    known.current_step,
                    known.progress,
                    known.restarts,
                )
            kept = self.do(result(self.stores[1], job_id))
            assert (kept.image if kept else None) == model.result

    @invariant()
    def waiting_jobs_are_in_order(self) -> None:
        waiting = [listed.job_id for listed in self.do(self.stores[1].view()).waiting]
        assert waiting == [job_id for job_id, model in self.model.items() if model.claimable]


@pytest.mark.timeout(3600)  # a slow disk takes minutes for so many commits
def test_a_store_is_as_its_model(new_database: Callable[[], Connect]) -> None:
    class Life(JobLife):
        def __init__(self) -> None:
            super().__init__(new_database())

    limits = settings(max_examples=40, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Life, settings=limits)
