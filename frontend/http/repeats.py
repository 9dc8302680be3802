"""Owns finding the job of a submission that a client sends again under one Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend.errors import InvalidInputError, JobNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from frontend.jobs.store import JobStore

MAX_KEYS = 4096
"""Kept at once; the oldest is forgotten first."""
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, eq=False)
class _Submission:
    digest: bytes
    """Of the body."""
    job_id: asyncio.Task[str]


class Repeats:
    """Remembers which key led to which job, for as long as the job is kept.

    Args:
        jobs: where the jobs live.
    """

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        # By owner and key.
        self._submissions: OrderedDict[tuple[str, str], _Submission] = OrderedDict()

    async def submit(
        self,
        owner: str,
        key: str,
        body: bytes,
        submit: Callable[[], Coroutine[None, None, str]],
    ) -> str:
        """Submit once for each key, and return the same job each time.

        The submission goes on if its client leaves: the key finds its job.

        Args:
            owner: who submits; another owner's key is another key.
            key: chosen by the client.
            body: of the request; the same key must come with the same one.
            submit: called only where the key is new, or its job was refused or has expired.

        Raises:
            InvalidInputError: the key is too long, or came with another body before.
            ServingError: as `submit` does.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidInputError(f"Idempotency-Key: longer than {MAX_KEY_LENGTH} characters")
        name = owner, key
        digest = (await asyncio.to_thread(hashlib.sha256, body)).digest()
        known = self._submissions.get(name)
        if known and await self._has_gone(known) and self._submissions.get(name) is known:
            del self._submissions[name]
        # From here to the new entry nothing is awaited, so that one key submits once.
        if (known := self._submissions.get(name)) is None:
            known = _Submission(digest, asyncio.create_task(submit()))
            # Else asyncio complains of an error that no client was left to hear.
            known.job_id.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._submissions[name] = known
            if len(self._submissions) > MAX_KEYS:
                self._submissions.popitem(last=False)
        if known.digest != digest:
            raise InvalidInputError("Idempotency-Key: it came with another request before")
        return await asyncio.shield(known.job_id)

    async def _has_gone(self, known: _Submission) -> bool:
        task = known.job_id
        if not task.done():
            return False
        if task.cancelled() or task.exception() is not None:
            return True
        try:
            await self._jobs.last(task.result())
        except JobNotFoundError:
            return True
        return False
