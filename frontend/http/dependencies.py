"""Owns what FastAPI passes to endpoints: the services, and a finished job's result."""

import time
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.owners import Owner
from frontend.errors import JobFailedError, JobNotFinishedError, JobNotFoundError
from frontend.http.access import owner_of
from frontend.http.displays import Displays
from frontend.http.repeats import Repeats
from frontend.http.schemas.fields import ErrorBody, NoResultBody
from frontend.jobs.board import Board
from frontend.jobs.store import JobStore, StoredBlob
from frontend.jobs.submissions import Submissions
from frontend.keys import Keys
from frontend.masks.image_store import ImageStore
from frontend.masks.service import MaskService
from frontend.pictures.workers import ImageWorkers
from frontend.settings import Settings
from frontend.shares import Holdings, Turns

# Only for the documentation: `Access` has looked at the key before.
KEY = [Security(HTTPBearer(auto_error=False))]
# Documented in place of FastAPI's own 422, which this server never answers.
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "Refused; the detail names the field or the id"},
    "5XX": {"model": ErrorBody, "description": "Failed; not built (501); not now (503)"},
}
# For the routes that give a finished job's result.
NO_RESULT: dict[int | str, dict[str, Any]] = {
    400: {"model": NoResultBody, "description": "The job has not ended, or was cancelled"},
    500: {"model": NoResultBody, "description": "The job failed; the detail is its error text"},
}


@dataclass(frozen=True)
class AppServices:
    """The parts of a running app."""

    settings: Settings
    keys: Keys | None
    images: ImageWorkers
    jobs: JobStore
    board: Board
    edits: Submissions
    repeats: Repeats
    image_store: ImageStore
    masks: MaskService
    streams: Holdings
    displays: Displays
    whole_results: Turns
    """A place for whoever reads tens of megabytes of a result into memory."""


async def _services(request: Request) -> AppServices:
    return cast("AppServices", request.app.state.services)


Services = Annotated[AppServices, Depends(_services)]


async def _request_owner(request: Request) -> Owner:
    return owner_of(request.scope)


RequestOwner = Annotated[Owner, Depends(_request_owner)]
"""Whose request it is."""


async def _own_task(
    task_id: Annotated[str, Path(description="of the answer to the submission")],
    services: Services,
    owner: RequestOwner,
) -> str:
    """Return the id of the owner's job: one of somebody else is as unknown as one of nobody.

    Raises:
        JobNotFoundError: the owner has no such job.
    """
    if await services.jobs.owner(task_id) != owner.name:
        raise JobNotFoundError(task_id)
    return task_id


TaskId = Annotated[str, Depends(_own_task)]
"""The one name and meaning of a job in every path; whoever asks is its owner."""


@dataclass(frozen=True)
class FinishedJob:
    """A job that is done."""

    task_id: str
    seconds_left: float
    """How long the server keeps it, unless it needs the space."""
    _jobs: JobStore

    @property
    def image(self) -> StoredBlob:
        """The picture, PNG."""
        return StoredBlob(self._jobs, self.task_id, "image")

    @property
    def info(self) -> StoredBlob:
        """The model's JSON."""
        return StoredBlob(self._jobs, self.task_id, "info")


def seconds_left(end: JobEvent, services: AppServices) -> float:
    """Return how long the server keeps a job that ended with `end`, unless it needs the space."""
    return end.at + services.settings.result_ttl_s - time.time()


async def _finished(task_id: TaskId, services: Services) -> FinishedJob:
    """Return the job.

    Raises:
        JobNotFoundError: no such job.
        JobFailedError: the job ended in `error`.
        JobNotFinishedError: the job has not ended, or was cancelled.
    """
    _, event = await services.jobs.last(task_id)
    if event.status is JobStatus.ERROR:
        raise JobFailedError(event.error or "", event.status)
    if event.status is not JobStatus.DONE:
        raise JobNotFinishedError(event.status, ended=event.status.terminal)
    return FinishedJob(task_id, seconds_left(event, services), services.jobs)


Finished = Annotated[FinishedJob, Depends(_finished)]
