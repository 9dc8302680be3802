"""Owns what an outage, the time in which no Triton can run a job, means for waiting jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Consequences:
    """What the dispatcher has to do."""

    announce: bool = False
    """Send every waiting job how it stands."""
    give_up: bool = False
    """End every waiting job: the outage has lasted too long."""


class Outage:
    """Follows the pings from one outage to the next.

    Args:
        longest_s: how long waiting jobs outlast an outage, in seconds.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._since: float | None = None
        # Each stage is announced once, because several Tritons may write the same file.
        self._stages: list[str] = []

    @property
    def stage(self) -> str | None:
        """The loading stage announced last in this outage; None if there is none."""
        return self._stages[-1] if self._stages else None

    def note(self, now: float, *, down: bool, stage: str | None) -> Consequences:
        """Take note of the latest pings.

        Args:
            now: the time in seconds; only differences count.
            down: whether no Triton can run a job.
            stage: what Triton is loading, in words; None if it has not written that.

        Returns:
            What follows for the waiting jobs.
        """
        if not down:
            ended = self._since is not None
            self._since = None
            self._stages.clear()
            return Consequences(announce=ended)
        begun = self._since is None
        if self._since is None:
            self._since = now
        new = stage is not None and stage not in self._stages
        if stage is not None and new:
            self._stages.append(stage)
        return Consequences(announce=begun or new, give_up=now - self._since > self._longest_s)
