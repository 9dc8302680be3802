"""Owns what an outage, the time in which no Triton can run a job, means for waiting jobs."""

from __future__ import annotations


class Outage:
    """Follows the looks at the Tritons from one outage to the next.

    Args:
        longest_s: how long waiting jobs outlast an outage, in seconds.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._since: float | None = None
        # Each stage is told once, because several Tritons may write the same file.
        self._stages: list[str] = []

    @property
    def stage(self) -> str | None:
        """The newest loading stage of this outage; None if there is none."""
        return self._stages[-1] if self._stages else None

    def note(self, now: float, *, down: bool, stage: str | None) -> bool:
        """Take note of the latest look.

        Args:
            now: the time in seconds; only differences count.
            down: whether no Triton can run a job.
            stage: what Triton is loading, in words; None if it has not written that.

        Returns:
            Whether the waiting jobs are to end, because the outage has lasted too long.
        """
        if not down:
            self._since = None
            self._stages.clear()
            return False
        if self._since is None:
            self._since = now
        if stage is not None and stage not in self._stages:
            self._stages.append(stage)
        return now - self._since > self._longest_s
