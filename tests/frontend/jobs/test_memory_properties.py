"""Drives the job store with everything that can happen to jobs, in any order."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from frontend.domain.edits import EditParams, EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import JobNotFoundError, UnavailableError
from frontend.jobs.memory import MemoryJobStore
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from frontend.jobs.store import Entry

MEMORY_BYTES = 60_000


@dataclass(eq=False)
class Subscriber:
    """A reader that keeps what it has received."""

    task_id: str
    seen: list[Entry] = field(default_factory=list)


class JobLife(RuleBasedStateMachine):
    """Submit, wait, step, finish, fail, cancel, subscribe, read, disconnect."""

    jobs = Bundle("jobs")
    subscribers = Bundle("subscribers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = MemoryJobStore(MEMORY_BYTES, ttl_s=3600)
        # What the log must show, and how each job ended; a forgotten job is in neither.
        self.model: dict[str, list[JobStatus]] = {}
        self.readers: list[Subscriber] = []
        self.count = 0

    def teardown(self) -> None:
        self.runner.close()

    def do(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run `call`; None where the job was forgotten, which only a finished one may be."""
        return self.runner.run(call)

    def append(self, task_id: str, event: JobEvent, result: EditResult | None = None) -> None:
        try:
            accepted = self.do(self.store.append(task_id, event, result))
        except JobNotFoundError:
            assert self.model[task_id][-1].terminal
            return
        except UnavailableError:
            assert result is not None
            return
        last = self.model[task_id][-1]
        order = [JobStatus.QUEUED, JobStatus.PROCESSING]
        if last.terminal:
            allowed = False
        elif event.status in order:
            allowed = order.index(event.status) >= order.index(last)
        else:
            allowed = event.status is not JobStatus.DONE or last is JobStatus.PROCESSING
        assert accepted == allowed
        if accepted:
            self.model[task_id].append(event.status)

    @rule(target=jobs, size=st.integers(0, 20_000))
    def submit(self, size: int) -> str:
        self.count += 1
        task_id = f"job{self.count}"
        params = EditParams(
            prompt="",
            image=bytes(size // 4),
            conditional_images=(bytes(size // 4),),
            task_type="removal",
            num_inference_steps=4,
            seed=0,
        )
        first = JobEvent(status=JobStatus.QUEUED, total_steps=4, at=0)
        try:
            self.do(self.store.create(task_id, params, bytes(size // 2), first, owner()))
        except UnavailableError:
            self.model[task_id] = [JobStatus.QUEUED, JobStatus.ERROR]
        else:
            self.model[task_id] = [JobStatus.QUEUED]
        return task_id

    @rule(task_id=jobs, position=st.integers(1, 9))
    def move_up(self, task_id: str, position: int) -> None:
        event = JobEvent(status=JobStatus.QUEUED, total_steps=4, queue_position=position, at=0)
        self.append(task_id, event)

    @rule(task_id=jobs, step=st.integers(0, 4), progress=st.floats(0, 1))
    def step(self, task_id: str, step: int, progress: float) -> None:
        event = JobEvent(
            status=JobStatus.PROCESSING,
            total_steps=4,
            current_step=step,
            progress=progress,
            stage=Stage.DENOISING,
            at=0,
        )
        self.append(task_id, event)

    @rule(task_id=jobs, size=st.integers(0, 20_000))
    def finish(self, task_id: str, size: int) -> None:
        event = JobEvent(status=JobStatus.DONE, total_steps=4, at=0)
        self.append(task_id, event, EditResult(bytes(size), b"{}"))

    @rule(task_id=jobs)
    def fail(self, task_id: str) -> None:
        event = JobEvent(status=JobStatus.ERROR, total_steps=4, error="500: no", at=0)
        self.append(task_id, event)

    @rule(task_id=jobs)
    def cancel(self, task_id: str) -> None:
        self.append(task_id, JobEvent(status=JobStatus.CANCELLED, total_steps=4, at=0))

    @rule(task_id=jobs)
    def release(self, task_id: str) -> None:
        try:
            self.do(self.store.release(task_id))
        except JobNotFoundError:
            assert self.model[task_id][-1].terminal

    @rule(target=subscribers, task_id=jobs)
    def subscribe(self, task_id: str) -> Subscriber:
        subscriber = Subscriber(task_id)
        self.readers.append(subscriber)
        return subscriber

    @rule(subscriber=subscribers)
    def read(self, subscriber: Subscriber) -> None:
        after = subscriber.seen[-1][0] if subscriber.seen else 0
        try:
            subscriber.seen += self.do(self.store.read(subscriber.task_id, after))
        except JobNotFoundError:
            assert self.model[subscriber.task_id][-1].terminal
            return
        statuses = [event.status for _, event in subscriber.seen]
        assert statuses == self.model[subscriber.task_id]

    @rule(subscriber=subscribers)
    def leave_while_waiting(self, subscriber: Subscriber) -> None:
        async def interrupted() -> None:
            reading = asyncio.create_task(self.store.read(subscriber.task_id, 10**6, wait_s=60))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

        self.do(interrupted())

    @rule(subscriber=consumes(subscribers))
    def disconnect(self, subscriber: Subscriber) -> None:
        self.readers.remove(subscriber)

    @invariant()
    def ends_are_final(self) -> None:
        for statuses in self.model.values():
            assert not any(status.terminal for status in statuses[:-1])

    @invariant()
    def readers_see_rising_numbers_steps_and_progress(self) -> None:
        for reader in self.readers:
            assert [seq for seq, _ in reader.seen] == list(range(1, len(reader.seen) + 1))
            events = [event for _, event in reader.seen]
            for before, after in itertools.pairwise(events):
                assert before.progress <= after.progress
                assert before.current_step <= after.current_step
            for event in events:
                assert (event.progress == 1) == (event.status is JobStatus.DONE)

    @invariant()
    def memory_is_bounded(self) -> None:
        # Events without pictures are not refused; this many rules make few of them.
        assert 0 <= self.store.size <= MEMORY_BYTES + 60 * 1024


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
