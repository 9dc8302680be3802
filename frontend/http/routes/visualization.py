"""Owns /api/visualization: an edit's pictures as files, by the request_id of its result."""

import asyncio
import zipfile
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from frontend.http.answer_limit import Stored, StoredAnswer
from frontend.http.dependencies import (
    KEY,
    NO_RESULT,
    REFUSALS,
    Finished,
    RequestOwner,
    Services,
    TaskId,
    seconds_left,
)
from frontend.http.safe_headers import private_for
from frontend.http.wanted_route import WantedRoute
from frontend.jobs.store import StoredBlob
from frontend.pictures.codecs import image_format

# Bytes that tell a picture's format.
BEGINNING = 16

router = APIRouter(
    prefix="/api/visualization/{task_id}",
    tags=["visualization"],
    dependencies=KEY,
    responses=REFUSALS,
    route_class=WantedRoute,
)


@router.get("/original", response_class=Response, summary="Fetch the picture that was edited")
async def original(task_id: TaskId, services: Services) -> Response:
    """Return the picture that was edited, as it was sent."""
    picture = StoredBlob(services.jobs, task_id, "original")
    _, event = await services.jobs.last(task_id)
    return StoredAnswer(
        [Stored(picture)],
        f"image/{image_format(await picture.piece(0, BEGINNING))}",
        private_for(seconds_left(event, services) if event.status.terminal else 0),
    )


@router.get(
    "/generated",
    response_class=Response,
    responses=NO_RESULT,
    summary="Fetch the edited picture",
)
async def generated(finished: Finished) -> Response:
    """Return the edited picture, PNG."""
    return StoredAnswer([Stored(finished.image)], "image/png", private_for(finished.seconds_left))


@router.get(
    "/download",
    response_class=Response,
    responses=NO_RESULT,
    summary="Fetch both pictures in one archive",
)
async def download(
    task_id: TaskId,
    finished: Finished,
    services: Services,
    owner: RequestOwner,
    format: Annotated[  # noqa: A002 (the contract's name)
        Literal["zip"], Query(description="of the archive")
    ] = "zip",
) -> Response:
    """Return both pictures in one archive."""
    picture = StoredBlob(services.jobs, task_id, "original")
    blobs = {
        f"original.{image_format(await picture.piece(0, BEGINNING))}": picture,
        "generated.png": finished.image,
    }
    async with services.whole_results.place(owner.name):
        frame = await _frame(blobs)
    stored = {name: Stored(blob) for name, blob in blobs.items()}
    headers = {"Content-Disposition": f'attachment; filename="{task_id}.{format}"'}
    return StoredAnswer(
        [part if isinstance(part, bytes) else stored[part] for part in frame],
        "application/zip",
        headers | private_for(finished.seconds_left),
    )


async def _frame(blobs: Mapping[str, StoredBlob]) -> list[bytes | str]:
    """Return what `_archive_without` does of blobs, which are in memory only meanwhile."""
    files = {name: await blob.whole() for name, blob in blobs.items()}
    return await asyncio.to_thread(_archive_without, files)


def _archive_without(files: dict[str, bytes]) -> list[bytes | str]:
    """Return an archive in parts, with a file's name where its data belong.

    Args:
        files: data by name; stored, because pictures do not get smaller.
    """
    written = _Parts()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            archive.writestr(name, data)
    names = {id(data): name for name, data in files.items()}
    return [names.get(id(part), part) for _, part in sorted(written.parts.items())]


class _Parts:
    """A file of the objects that were written to it, not of copies."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self._at = 0

    def write(self, data: bytes) -> int:
        self.parts[self._at] = data
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def flush(self) -> None:
        """Do nothing."""
