"""Owns /api/visualization: an edit's pictures as files, by the request_id of its result."""

import asyncio
import io
import zipfile
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from frontend.http.dependencies import NO_RESULT, REFUSALS, Finished, Services, TaskId
from frontend.http.wanted_route import WantedRoute
from frontend.pictures.codecs import image_format

router = APIRouter(
    prefix="/api/visualization/{task_id}",
    tags=["visualization"],
    responses=REFUSALS,
    route_class=WantedRoute,
)


@router.get("/original", response_class=Response, summary="Fetch the picture that was edited")
async def original(task_id: TaskId, services: Services) -> Response:
    """Return the picture that was edited, as it was sent."""
    image = await services.jobs.original(task_id)
    return Response(image, media_type=f"image/{image_format(image)}")


@router.get(
    "/generated",
    response_class=Response,
    responses=NO_RESULT,
    summary="Fetch the edited picture",
)
async def generated(finished: Finished) -> Response:
    """Return the edited picture, PNG."""
    return Response(finished.image, media_type="image/png")


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
    format: Annotated[  # noqa: A002 (the contract's name)
        Literal["zip"], Query(description="of the archive")
    ] = "zip",
) -> Response:
    """Return both pictures in one archive."""
    image = await services.jobs.original(task_id)
    files = {f"original.{image_format(image)}": image, "generated.png": finished.image}
    headers = {"Content-Disposition": f'attachment; filename="{task_id}.{format}"'}
    archive = await asyncio.to_thread(_archive, files)
    return Response(archive, media_type="application/zip", headers=headers)


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # Stored: pictures do not get smaller.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
