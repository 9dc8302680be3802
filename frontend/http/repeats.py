"""Owns finding the job of a submission that a client sends again under one Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from frontend.errors import InvalidInputError
from frontend.jobs.store import Key
from frontend.jobs.submissions import Submitted
from frontend.shares import Holdings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from frontend.jobs.store import JobStore

MAX_KEY_LENGTH = 255


class Repeats:
    """Finds jobs by their keys, for as long as the jobs are kept.

    The store remembers the keys. Here are only the submissions that have not reached it. Each
    holds its body in memory, also when its client has left and no connection counts it any more.

    Args:
        jobs: where the jobs live.
        max_bytes: of the bodies of all these submissions.
        owner_fraction: of that, for one owner.
    """

    def __init__(self, jobs: JobStore, max_bytes: int, owner_fraction: float) -> None:
        self._jobs = jobs
        self._bytes = Holdings("bytes of submissions", max_bytes, owner_fraction)
        self._submitting: dict[tuple[str, str], tuple[Key, asyncio.Task[Submitted]]] = {}

    async def submit(
        self,
        owner: str,
        key: str,
        body: bytes,
        submit: Callable[[Key], Coroutine[None, None, Submitted]],
    ) -> Submitted:
        """Submit once for each key, and return the same job each time.

        The submission goes on if its client leaves: the key finds its job.

        Args:
            owner: whose key it is; another owner's is another key.
            key: chosen by the client.
            body: of the request; the same key must come with the same one.
            submit: called only where the key is new, or its job was refused or has expired.

        Raises:
            InvalidInputError: the key is too long, or came with another body before.
            UnavailableError: the submissions that are on their way hold too many bytes.
            TooMuchError: this owner's do.
            ServingError: as `submit` does.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidInputError(f"Idempotency-Key: longer than {MAX_KEY_LENGTH} characters")
        named = Key(key, (await asyncio.to_thread(hashlib.sha256, body)).digest())
        if (known := await self._jobs.keyed(owner, named)) is not None:
            return Submitted(known, (await self._jobs.last(known))[1])
        # From here to the new entry nothing is awaited, so that one key decodes once.
        if (entry := self._submitting.get((owner, key))) is None:
            size = len(body)
            self._bytes.check(owner, size)
            self._bytes.add(owner, size)
            task = asyncio.create_task(submit(named))
            entry = self._submitting[owner, key] = named, task
            task.add_done_callback(lambda _: self._submitting.pop((owner, key)))
            task.add_done_callback(lambda _: self._bytes.add(owner, -size))
            # Else asyncio complains of an error that no client was left to hear.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        first, task = entry
        if first.digest != named.digest:
            raise InvalidInputError("Idempotency-Key: it came with another request before")
        return await asyncio.shield(task)
