"""Owns shares: how much of a thing each owner holds, and whose turn it is."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import TYPE_CHECKING

from frontend.domain.owners import portion
from frontend.errors import TooMuchError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from frontend.domain.owners import Owner

# Owners whose last turn is remembered; beyond them the one with the oldest is forgotten.
MAX_OWNERS = 4096


class Holdings:
    """Counts what each owner holds of one thing, and refuses more than may be.

    Args:
        what: the thing, in the plural, for the refusal.
        total: for all owners.
        fraction: of it, for one owner.
    """

    def __init__(self, what: str, total: int, fraction: float) -> None:
        self._what = what
        self._fraction = fraction
        self.resize(total)
        self._held: collections.Counter[str] = collections.Counter()
        self.sum = 0
        """What all owners hold."""

    def resize(self, total: int) -> None:
        """Let all owners hold so much from now on; who holds more keeps it."""
        self._total = total
        self._most = portion(total, self._fraction)

    def check(self, owner: str, amount: int = 1) -> None:
        """Check that an owner may hold so much more.

        Raises:
            UnavailableError: all owners together hold too much.
            TooMuchError: this one does.
        """
        if self.sum + amount > self._total:
            raise UnavailableError(f"The server is busy with {self._what}")
        if self._held[owner] + amount > self._most:
            raise TooMuchError(f"This client has as many {self._what} as one may: {self._most}")

    def add(self, owner: str, amount: int = 1) -> None:
        """Count so much more, or less if it is negative."""
        self._held[owner] += amount
        self.sum += amount
        if not self._held[owner]:
            del self._held[owner]

    @contextlib.contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """Count one more while the context lasts; raises as `check` does."""
        self.check(owner)
        self.add(owner)
        try:
            yield
        finally:
            self.add(owner, -1)


def check_waiting(owner: Owner, waiting: int) -> None:
    """Check that one job more of this owner may wait beside so many.

    Raises:
        TooMuchError: it may not.
    """
    if waiting >= (most := owner.limits.max_waiting):
        raise TooMuchError(f"This client has as many waiting jobs as one may: {most}")


class Rotation:
    """Says whose turn it is: that of the owner who had none yet, or whose last is longest ago."""

    def __init__(self) -> None:
        self._turns: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._newest = 0

    def last_turn(self, owner: str) -> int:
        """Return the number of an owner's last turn; 0 if it had none."""
        return self._turns.get(owner, 0)

    def next(self, owners: Iterable[str]) -> str:
        """Return whose turn it is of these; of equals the first."""
        return min(owners, key=self.last_turn)

    def note(self, owner: str) -> None:
        """Take note of a turn."""
        self._newest += 1
        self._turns[owner] = self._newest
        self._turns.move_to_end(owner)
        if len(self._turns) > MAX_OWNERS:
            self._turns.popitem(last=False)


class Budgets:
    """Counts what owners spend of what they may each minute.

    Whoever has anything left may spend, also more than that: so nothing is too dear for ever.

    Args:
        clock: gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # What each had left, and when.
        self._left: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def check(self, owner: Owner) -> None:
        """Check that an owner has something left.

        Raises:
            TooMuchError: it has not.
        """
        if (rate := owner.limits.per_minute) is None or (left := self._now_left(owner, rate)) > 0:
            return
        raise TooMuchError(
            f"This key may have {rate:g} usual edits a minute, and has had more",
            1 - left * 60 / rate,
        )

    def spend(self, owner: Owner, amount: float) -> None:
        """Count what an owner spends; nothing if it has no bound."""
        if (rate := owner.limits.per_minute) is None:
            return
        self._left[owner.name] = self._now_left(owner, rate) - amount, self._clock()
        self._left.move_to_end(owner.name)
        if len(self._left) > MAX_OWNERS:
            self._left.popitem(last=False)

    def _now_left(self, owner: Owner, rate: float) -> float:
        left, at = self._left.get(owner.name, (rate, 0.0))
        return min(rate, left + (self._clock() - at) * rate / 60)


class Turns:
    """A few places, for which owners wait; a free one goes to the next owner in turn.

    Args:
        places: how many there are.
        waiting: counts and bounds who waits.
    """

    def __init__(self, places: int, waiting: Holdings) -> None:
        self._free = places
        self._waiting = waiting
        self._rotation = Rotation()
        # By owner, in the order of their coming.
        self._queues: dict[str, collections.deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Hold a place, and wait for it before.

        Raises:
            UnavailableError: too many wait already.
            TooMuchError: too many of this owner do.
        """
        if self._free:
            self._free -= 1
            self._rotation.note(owner)
        else:
            with self._waiting.held(owner):
                await self._turn(owner)
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self, owner: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(owner, collections.deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on()
            elif turn in queue:
                queue.remove(turn)
                if not queue:
                    del self._queues[owner]
            raise

    def _pass_on(self) -> None:
        while self._queues:
            owner = self._rotation.next(self._queues)
            queue = self._queues[owner]
            turn = queue.popleft()
            if not queue:
                del self._queues[owner]
            # One who is leaving, and has not run since, is still in the queue.
            if not turn.done():
                self._rotation.note(owner)
                turn.set_result(None)
                return
        self._free += 1
