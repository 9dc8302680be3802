"""Owns sweeping a store: jobs whose holder is lost wait again, and what has expired goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from frontend.errors import StoreAwayError
from frontend.jobs.ends import log_freed
from frontend.supervision import Rounds

if TYPE_CHECKING:
    from frontend.jobs.store import JobStore

log = structlog.get_logger()

ROUND_S = 1.0
GAP = 0.5
"""Of a lease: who reaches the store no more often knows of nobody whether they could renew."""


class Sweeper:
    """Sweeps a store for ever. Every process may do so.

    Leases are judged only by who has written to the store without a gap for a whole lease. After
    the store was away, this process or the machine stood still, or the store's clock was set, all
    leases look as if they were over. The store's clock shows each of these: a process's own clock
    stands still while its machine sleeps.

    Dispatchers do not stop their jobs while the store is away, so nothing else keeps a job from
    being run twice after that.

    Args:
        store: what to sweep.
        lease_s: seconds of a lease.
    """

    def __init__(self, store: JobStore, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._reached_since: float | None = None
        self._reached_at = 0.0

    async def run(self) -> None:
        """Sweep until this is cancelled."""
        rounds = Rounds("sweeper")
        while True:
            with rounds.one():
                await self.sweep()
            await asyncio.sleep(ROUND_S)

    async def sweep(self) -> None:
        """Sweep once."""
        try:
            await self._store.sweep()
            gap_s = GAP * self._lease_s
            now = await self._store.beat(gap_s)
            if self._reached_since is None or not 0 <= now - self._reached_at <= gap_s:
                self._reached_since = now
            self._reached_at = now
            if now - self._reached_since >= self._lease_s:
                for freed in await self._store.reap(now):
                    log.warning("job_reaped", task_id=freed.job_id)
                    log_freed(freed)
        except StoreAwayError as error:
            self._reached_since = None
            log.warning("store_away", reason=error.reason)
