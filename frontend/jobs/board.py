"""Owns what submitting and showing jobs has to know of those who run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from frontend.domain.edits import Size
    from frontend.domain.jobs import JobEvent
    from frontend.domain.models import EditModelState
    from frontend.domain.owners import Owner
    from frontend.jobs.store import Waiting


class Board(Protocol):
    """How the Tritons and the waiting jobs stand."""

    @property
    def waiting(self) -> int:
        """Number of jobs that wait to start."""

    @property
    def running(self) -> int:
        """Number of jobs that Triton has."""

    @property
    def tritons(self) -> int:
        """Number of Tritons, ready or not."""

    @property
    def taken_by(self) -> list[str]:
        """Ids of ended jobs that a model still works on, so that others wait."""

    def require(self) -> list[EditModelState]:
        """Return the last answers of the Tritons that can run edits now.

        Raises:
            ClosingError: the server is stopping.
            TritonDownError: no Triton can; the detail gives the reason.
        """

    def expected_seconds(self, steps: int, size: Size | None) -> float | None:
        """Return how long an edit takes on an idle engine, in seconds.

        Args:
            steps: denoising steps.
            size: of the answer, if known.

        Returns:
            None if no edit was measured yet, or no Triton can run edits now.
        """

    def pixels(self, size: Size | None) -> int:
        """Return how many pixels the model computes at most for an answer of this size."""

    def check(self, owner: Owner) -> None:
        """Check that one more job of this owner may wait.

        Raises:
            UnavailableError: too many jobs wait.
            TooMuchError: too many of this owner do.
        """

    def outlook(self, owner: Owner, event: JobEvent) -> JobEvent:
        """Return the first event of a job that is about to come, with how it will stand."""

    def expect(self, job: Waiting) -> None:
        """Take note of a job that has just come."""

    def standing(self, job_id: str, last: JobEvent) -> JobEvent:
        """Return a job's newest event as it is now: a waiting job's place changes with the others.

        Args:
            job_id: the job.
            last: its newest event.
        """

    async def end_cancelled(self, job_id: str) -> None:
        """Bring a job, which its client has cancelled, to its end."""
