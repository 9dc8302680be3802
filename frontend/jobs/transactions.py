"""Owns what a SQL store does in each of its transactions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend import shares
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import (
    InvalidInputError,
    JobNotFoundError,
    TooMuchError,
    UnavailableError,
)
from frontend.jobs import rules
from frontend.jobs.records import (
    event_json,
    event_of,
    params_json,
    picture_names,
    triton_json,
    triton_of,
)
from frontend.jobs.statements import row, rows
from frontend.jobs.store import (
    ABSENT_S,
    FORMER_S,
    Announced,
    Claim,
    Created,
    Entry,
    Freed,
    Held,
    Listed,
    Running,
    View,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from frontend.domain.owners import Owner
    from frontend.domain.tritons import TritonState
    from frontend.jobs.statements import Row, Steps
    from frontend.jobs.store import Key, NewJob

EVENT_BYTES = 1024
"""Estimated size of an entry without its preview."""
FORGET_AT_ONCE = 16
"""Jobs in one transaction, so that others wait for it no longer than for their own."""
STALE_CANCEL_S = 2.0
LONGEST_LEASE_S = 120.0
"""A lease that ends later than this was given before the clock was set back."""
FORGET_WORKER_S = 60.0
NO_NUMBER = 2**62


@dataclass(frozen=True)
class Bounds:
    """What the store may hold."""

    bytes: int
    """Of all jobs; unfinished ones may take half."""
    waiting: int
    """Jobs that no worker has."""


def entry_of(found: Row) -> Entry:
    """Return a row of events."""
    return found["seq"], event_of(found["data"], bytes(found["preview"]))


def job(job_id: str) -> Steps[Row]:
    """Return a job's row.

    Raises:
        JobNotFoundError: no such job.
    """
    # PostgreSQL takes no NUL, which a path may hold, for text; no id has one.
    if "\0" in job_id or (found := (yield from row("job", job_id))) is None:
        raise JobNotFoundError(job_id)
    return found


# --- for clients ---


def room(bounds: Bounds, owner: Owner, size: int) -> Steps[None]:
    """Check that a job of so many bytes may come.

    Raises:
        UnavailableError: it may not.
        TooMuchError: it may not beside its owner's other jobs.
    """
    held = yield from row("unfinished")
    assert held is not None
    if held["waiting"] >= bounds.waiting:
        raise UnavailableError("The queue is full")
    if held["bytes"] + size > bounds.bytes // 2:
        raise UnavailableError("The server holds as many images of waiting jobs as it may")
    own = yield from row("unfinished_of", owner.name)
    assert own is not None
    shares.check_waiting(owner, own["waiting"])
    if own["bytes"] + size > (most := owner.limits.max_bytes):
        raise TooMuchError(f"This client has as many bytes in waiting jobs as one may: {most}")


def look(new: NewJob, bounds: Bounds, input_bytes: int) -> Steps[Created | None]:
    """Return the job if it has been added before, and else check that there is room for it.

    Raises:
        InvalidInputError: its key came with another request.
        UnavailableError: there is no room.
        TooMuchError: there is none beside its owner's other jobs.
    """
    if new.key and (found := (yield from keyed(new.owner.name, new.key))) is not None:
        return Created(found["task_id"], found["number"])
    if (found := (yield from row("number_of", new.job_id))) is not None:
        return Created(new.job_id, found["number"])
    yield from room(bounds, new.owner, input_bytes + len(new.original) + EVENT_BYTES)
    return None


def create(new: NewJob, bounds: Bounds, input_bytes: int) -> Steps[Created | None]:
    """Add a job, whose pictures are there already; None: see `make_space`, and JobStore."""
    yield from rows("lock")
    if (before := (yield from look(new, bounds, input_bytes))) is not None:
        return before
    size = input_bytes + len(new.original) + EVENT_BYTES
    if not (yield from make_space(bounds, new.owner.name, size)):
        return None
    added = yield from row(
        "insert_job",
        new.job_id,
        new.owner.name,
        new.owner.limits.max_running,
        new.key.name if new.key else None,
        new.key.digest if new.key else None,
        new.params.task_type,
        params_json(new.params),
        new.max_attempts,
        size,
        input_bytes,
        new.event.at,
    )
    assert added is not None
    yield from _write(new.job_id, 1, new.event)
    return Created(new.job_id, added["number"])


def drop_unborn(job_id: str) -> Steps[None]:
    """Delete what was put for a job that has not come; what a commit's answer was lost for has."""
    if (yield from row("number_of", job_id)) is None:
        yield from rows("delete_blobs", job_id)


def keyed(owner: str, key: Key) -> Steps[Row | None]:
    """Return the job of a key; see JobStore."""
    found = yield from row("job_of_key", owner, key.name)
    if found is not None and bytes(found["fingerprint"]) != key.digest:
        raise InvalidInputError("Idempotency-Key: it came with another request before")
    return found


def read(job_id: str, after: int) -> Steps[tuple[list[Entry], bool]]:
    """Return the entries after a number, and whether the job has ended."""
    found = yield from job(job_id)
    if after >= found["last_seq"]:
        return [], found["ended_at"] is not None
    entries = yield from rows("events_after", job_id, after)
    return [entry_of(entry) for entry in entries], found["ended_at"] is not None


def last(job_id: str) -> Steps[Entry]:
    """Return the newest entry."""
    found = yield from job(job_id)
    entry = yield from row("event", job_id, found["last_seq"])
    assert entry is not None
    return entry_of(entry)


def size_of(job_id: str, name: str) -> Steps[int]:
    """Return the bytes of a blob; see JobStore."""
    found = yield from row("blob_size", job_id, (yield from _stored(job_id, name)))
    assert found is not None
    return int(found["bytes"])


def piece_of(job_id: str, name: str, part: int, start: int, count: int) -> Steps[bytes]:
    """Return a piece of one part of a blob; see JobStore."""
    stored = yield from _stored(job_id, name)
    found = yield from row("piece", job_id, stored, part, start + 1, count)
    return bytes(found["data"]) if found is not None else b""


def _stored(job_id: str, name: str) -> Steps[str]:
    """Return the name under which a blob lies: results of several attempts may be there."""
    found = yield from job(job_id)
    return name if name == "original" else f"{found['attempt']}/{name}"


def newest(
    owner: str, limit: int, before: int | None, statuses: Collection[JobStatus]
) -> Steps[list[Listed]]:
    """Return a page of jobs; see JobStore."""
    below = NO_NUMBER if before is None else before
    if not statuses:
        return _listed((yield from rows("newest", below, limit, owner)))
    # State by state, because an index gives each in order.
    found: list[Listed] = []
    for status in set(statuses):
        found += _listed((yield from rows("newest_of", below, limit, owner, str(status))))
    return sorted(found, key=lambda listed: -listed.number)[:limit]


def view() -> Steps[View]:
    """Return the jobs that have not ended, and the workers; see JobStore."""
    waiting = yield from _waiting()
    running = [
        Running(
            each["task_id"],
            each["owner"],
            each["worker"],
            each["turn"],
            event_of(each["data"], bytes(each["preview"])),
        )
        for each in (yield from rows("held"))
    ]
    tritons = [
        Announced(each["worker"], triton_of(each["state"]), each["age"])
        for each in (yield from rows("workers", ABSENT_S))
    ]
    return View(waiting, running, tritons)


def _waiting() -> Steps[list[Waiting]]:
    found = yield from rows("waiting")
    return [
        Waiting(
            each["number"],
            each["task_id"],
            each["task_type"],
            each["owner"],
            each["max_running"],
            each["last_turn"],
            event_of(each["data"], bytes(each["preview"])),
        )
        for each in found
    ]


def _listed(found: Sequence[Row]) -> list[Listed]:
    return [
        Listed(
            each["number"],
            each["task_id"],
            each["task_type"],
            each["created_at"],
            event_of(each["data"], bytes(each["preview"])),
        )
        for each in found
    ]


def ask_cancel(job_id: str) -> Steps[JobStatus]:
    """Note that a job is to be cancelled; see JobStore."""
    yield from rows("lock")  # an end looks for this, and must not come between
    yield from rows("ask_cancel", job_id)
    return JobStatus((yield from job(job_id))["status"])


def end_waiting(job_id: str, status: JobStatus, error: str) -> Steps[bool]:
    """End a job that nobody holds; see JobStore."""
    yield from rows("lock")
    if (yield from job(job_id))["cancel_asked_at"] is not None:
        status, error = JobStatus.CANCELLED, rules.CANCELLED_TEXT
    _, newest_event = yield from last(job_id)
    end = rules.end_of(newest_event, status, error, time.time())
    return end is not None and (yield from _end_free(job_id, end))


# --- for a dispatcher ---


def announce(worker: str, states: Sequence[TritonState]) -> Steps[None]:
    """Tell how a worker's Tritons stand; see JobStore."""
    for state in states:
        yield from rows("announce", worker, state.url, triton_json(state))
    yield from rows("forget_absent", FORGET_WORKER_S)


def depart(worker: str) -> Steps[None]:
    """Forget what a worker has announced; see JobStore."""
    yield from rows("depart", worker)


def take_back(name: str, worker: str, error: str) -> Steps[list[Freed]]:
    """Let the jobs of a name's former workers wait again; see JobStore."""
    yield from rows("lock")
    found = yield from rows("free_of_former", name, worker, FORMER_S)
    yield from rows("depart_former", name, worker, FORMER_S)
    return (yield from _all_anew(found, error))


def claim(worker: str, task_types: Collection[str], lease_s: float) -> Steps[Claim | None]:
    """Take the first job that waits; see JobStore."""
    yield from rows("lock")  # whose turn it is, and how many run, depends on all claims before
    kinds = f",{','.join(task_types)},"
    if (found := (yield from row("claim", worker, lease_s, kinds))) is None:
        return None
    entry = yield from row("event", found["task_id"], found["last_seq"])
    assert entry is not None
    return Claim(
        found["task_id"],
        found["number"],
        worker,
        found["attempt"],
        found["task_type"],
        found["owner"],
        found["max_running"],
        found["turn"],
        entry_of(entry),
    )


def inputs(job_id: str) -> Steps[tuple[str, list[str]] | None]:
    """Return a job's params and the names of its pictures; None after its end."""
    found = yield from job(job_id)
    if found["ended_at"] is not None:
        return None
    return found["params"], picture_names(found["params"])


def append(held: Claim, seq: int, event: JobEvent, bounds: Bounds) -> Steps[bool | None]:
    """Add an event; None: see `make_space`, and JobStore."""
    if event.preview:
        yield from rows("lock")
        if not (yield from make_space(bounds, held.owner, len(event.preview))):
            return None
    size = EVENT_BYTES + len(event.preview)
    fence = (held.job_id, held.worker, held.attempt)
    if (yield from row("append", *fence, seq, str(event.status), size)) is None:
        return False
    yield from _write(held.job_id, seq, event)
    return True


def end(held: Claim, seq: int, event: JobEvent, result: int, bounds: Bounds) -> Steps[bool | None]:
    """Add the final event; the result of so many bytes is there already.

    None: see `make_space`, and JobStore.
    """
    yield from rows("lock")
    if event.status is not JobStatus.CANCELLED and (yield from _end_cancelled(held, seq)):
        return False
    if result and not (yield from make_space(bounds, held.owner, result)):
        return None
    fence = (held.job_id, held.worker, held.attempt)
    size = EVENT_BYTES + len(event.preview) + result
    found = yield from row("end_held", *fence, seq, str(event.status), size)
    if found is None:
        return False
    yield from _count_finished(found["owner"], found["bytes"])
    yield from rows("delete_all_but", held.job_id, f"{held.attempt}/%")
    yield from _write(held.job_id, seq, event)
    return True


def _end_cancelled(held: Claim, seq: int) -> Steps[bool]:
    """End a held job as cancelled if that was asked for; its client was told that it ends so."""
    found = yield from job(held.job_id)
    if found["cancel_asked_at"] is None or found["ended_at"] is not None:
        return False
    _, newest_event = yield from last(held.job_id)
    event = rules.end_of(newest_event, JobStatus.CANCELLED, rules.CANCELLED_TEXT, time.time())
    assert event is not None, "it has not ended"
    fence = (held.job_id, held.worker, held.attempt)
    ended = yield from row("end_held", *fence, seq, str(event.status), EVENT_BYTES)
    if ended is None:
        return False
    yield from _count_finished(ended["owner"], ended["bytes"])
    yield from rows("delete_all_but", held.job_id, "")
    yield from _write(held.job_id, seq, event)
    return True


def drop_result(held: Claim) -> Steps[None]:
    """Delete the result of an end that was refused; an end that was repeated keeps it."""
    yield from rows("lock")  # an end whose answer was lost may still be on its way
    found = yield from row("job", held.job_id)
    if not found or (found["status"], found["attempt"]) != (JobStatus.DONE, held.attempt):
        yield from rows("delete_results", held.job_id, f"{held.attempt}/%")


def give_back(held: Claim, lost: str | None) -> Steps[Freed | None]:
    """Let a job wait again; see JobStore."""
    yield from rows("lock")
    fence = (held.job_id, held.worker, held.attempt)
    if (yield from row("free", *fence, int(lost is not None))) is None:
        return None
    return (yield from _begin_anew(held.job_id, lost or ""))


def renew(claims: Sequence[Claim], lease_s: float) -> Steps[list[Held]]:
    """Lengthen leases; see JobStore."""
    held = []
    for claim in claims:
        fence = (claim.job_id, claim.worker, claim.attempt)
        if (found := (yield from row("renew", *fence, lease_s))) is not None:
            cancel_asked = found["cancel_asked_at"] is not None
            held.append(Held(claim.job_id, claim.attempt, cancel_asked))
    return held


# --- for whoever sweeps ---


def beat(late_s: float) -> Steps[float]:
    """Return the database's time, once late leases could be renewed; see JobStore."""
    # Also of no job: who locks the whole table keeps everybody out.
    yield from rows("touch_late", late_s)
    found = yield from row("now")
    assert found is not None
    return float(found["now"])


def reap(at: float, error: str) -> Steps[list[Freed]]:
    """Let the jobs wait again whose leases were over `at`; `error` ends those that may not."""
    yield from rows("lock")
    found = yield from rows("free_overdue", at, LONGEST_LEASE_S)
    return (yield from _all_anew(found, error))


def stale_cancels() -> Steps[list[str]]:
    """Return the waiting jobs whose cancel was noted and not finished."""
    found = yield from rows("stale_cancels", STALE_CANCEL_S)
    return [each["task_id"] for each in found]


def expired(ttl_s: float) -> Steps[list[str]]:
    """Return some of the jobs that ended longer ago."""
    found = yield from rows("expired", ttl_s, FORGET_AT_ONCE)
    return [each["task_id"] for each in found]


def forget(job_ids: Sequence[str]) -> Steps[None]:
    """Delete jobs that have ended, or what was put for jobs that never came."""
    yield from rows("lock")
    for job_id in job_ids:
        if (found := (yield from row("delete_job", job_id))) is not None:
            yield from _count_finished(found["owner"], -found["bytes"])
            yield from rows("forget_owner", found["owner"])
        yield from rows("delete_blobs", job_id)


def make_space(bounds: Bounds, owner: str, size: int) -> Steps[bool]:
    """Forget finished jobs until so many bytes more of an owner fit, a few at most.

    The owner of the most, these bytes included, loses the jobs that finished first.

    Returns:
        Whether they fit. If not, commit what was done and begin anew: the others have their turn.

    Raises:
        UnavailableError: they do not fit beside the unfinished jobs.
    """
    unfinished, _ = yield from _held()
    if unfinished + size > bounds.bytes:
        raise UnavailableError("The server holds as many pictures as it may")
    return (yield from _forget_until(bounds.bytes - unfinished - size, owner, size))


def exceeds(bounds: Bounds) -> Steps[bool]:
    """Return whether `trim` has anything to forget."""
    unfinished, finished = yield from _held()
    return finished > max(bounds.bytes - unfinished, 0)


def trim(bounds: Bounds) -> Steps[bool]:
    """Forget finished jobs beyond the bound, a few at most; return whether that was enough."""
    yield from rows("lock")
    unfinished, _ = yield from _held()
    return (yield from _forget_until(max(bounds.bytes - unfinished, 0), "", 0))


def _held() -> Steps[tuple[int, int]]:
    """Return the bytes of the unfinished jobs and of the finished ones."""
    unfinished = yield from row("unfinished")
    finished = yield from row("finished_bytes")
    assert unfinished is not None
    assert finished is not None
    return unfinished["bytes"], finished["bytes"]


def _forget_until(most: int, owner: str, size: int) -> Steps[bool]:
    """Forget finished jobs until they take so many bytes; see `make_space`."""
    for _ in range(FORGET_AT_ONCE):
        finished = yield from row("finished_bytes")
        assert finished is not None
        if finished["bytes"] <= most:
            return True
        largest = yield from row("largest_owner", owner, size)
        assert largest is not None, "finished jobs hold bytes"
        first = yield from row("first_finished_of", largest["owner"])
        assert first is not None, "it has finished jobs"
        yield from forget([first["task_id"]])
    return False


def _count_finished(owner: str, size: int) -> Steps[None]:
    yield from rows("count_finished", size)
    yield from rows("count_finished_of", owner, size)


def _all_anew(freed: Sequence[Row], error: str) -> Steps[list[Freed]]:
    found = []
    for each in freed:
        found.append((yield from _begin_anew(each["task_id"], error)))
    return found


def _begin_anew(job_id: str, error: str) -> Steps[Freed]:
    """Let a job that was just freed wait, or end it."""
    found = yield from job(job_id)
    _, newest_event = yield from last(job_id)
    at = time.time()
    if found["cancel_asked_at"] is not None:
        event = rules.end_of(newest_event, JobStatus.CANCELLED, rules.CANCELLED_TEXT, at)
    elif found["losses"] >= found["max_attempts"]:
        event = rules.end_of(newest_event, JobStatus.ERROR, error, at)
    else:
        if (event := rules.waiting_again(newest_event, at)) is not None:
            yield from rows("requeue", job_id, found["last_seq"] + 1, EVENT_BYTES)
            yield from _write(job_id, found["last_seq"] + 1, event)
        return Freed(job_id, found["task_type"], None)
    assert event is not None, "who held it had not ended it"
    yield from _end_free(job_id, event)
    return Freed(job_id, found["task_type"], event)


def _end_free(job_id: str, event: JobEvent) -> Steps[bool]:
    seq = (yield from job(job_id))["last_seq"] + 1
    ended = yield from row("end_free", job_id, seq, str(event.status), EVENT_BYTES)
    if ended is None:
        return False
    yield from _count_finished(ended["owner"], ended["bytes"])
    yield from rows("delete_all_but", job_id, "")
    yield from _write(job_id, seq, event)
    return True


def _write(job_id: str, seq: int, event: JobEvent) -> Steps[None]:
    yield from rows("insert_event", job_id, seq, event_json(event), event.preview)
