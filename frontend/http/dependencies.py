"""Owns what FastAPI passes to endpoints: the services, and a finished job's result."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Request

from frontend.dispatch.dispatcher import EditService
from frontend.domain.edits import EditResult
from frontend.domain.jobs import JobStatus
from frontend.errors import JobFailedError, JobNotFinishedError
from frontend.http.repeats import Repeats
from frontend.http.schemas.fields import ErrorBody, NoResultBody
from frontend.jobs.store import JobStore
from frontend.masks.image_store import ImageStore
from frontend.masks.service import MaskService
from frontend.pictures.workers import ImageWorkers
from frontend.settings import Settings

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
    images: ImageWorkers
    jobs: JobStore
    edits: EditService
    repeats: Repeats
    image_store: ImageStore
    masks: MaskService


TaskId = Annotated[str, Path(description="of the answer to the submission")]
"""The one name and meaning of a job in every path."""


async def _services(request: Request) -> AppServices:
    return cast("AppServices", request.app.state.services)


Services = Annotated[AppServices, Depends(_services)]


async def _finished(task_id: TaskId, services: Services) -> EditResult:
    """Return the job's result.

    Raises:
        JobNotFoundError: no such job.
        JobFailedError: the job ended in `error`.
        JobNotFinishedError: the job has not ended, or was cancelled.
    """
    _, event = await services.jobs.last(task_id)
    if event.status is JobStatus.ERROR:
        raise JobFailedError(event.error or "", event.status)
    if (result := await services.jobs.result(task_id)) is None:
        raise JobNotFinishedError(event.status, ended=event.status.terminal)
    return result


Finished = Annotated[EditResult, Depends(_finished)]
