"""Owns /api/smart-mask and /api/image-utils: finding an object in a picture, and cutting it out."""

import base64
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from frontend.domain.masks import Picture
from frontend.domain.owners import Owner
from frontend.errors import ImageNotFoundError, InvalidInputError, UnsupportedError, quoted
from frontend.http.dependencies import KEY, REFUSALS, RequestOwner, Services
from frontend.http.json_route import JsonRoute
from frontend.http.schemas.masks import (
    DetectAnswer,
    DetectRequest,
    ExtractAnswer,
    ExtractRequest,
    MaskCancelled,
    SmartMaskAnswer,
    SmartMaskRequest,
)

router = APIRouter(tags=["masks"], dependencies=KEY, responses=REFUSALS, route_class=JsonRoute)


@router.post("/api/smart-mask", summary="Find the object that is meant")
async def smart_mask(
    request: SmartMaskRequest, services: Services, owner: RequestOwner
) -> SmartMaskAnswer:
    """Return the mask of the object that the prompts mean.

    The first request on a picture runs the network; later ones take milliseconds, whether they
    name it by image_id or send it again.
    """
    if request.model_type == "birefnet":
        raise UnsupportedError("model_type: birefnet is not built")
    with services.masks.admitted(owner.name, request.request_id) as ticket:
        image = await _image(request, services, owner)
        rough = request.mask
        mask = await services.images.file(owner.name, "mask", rough) if rough else None
        found = await services.masks.find(ticket, request.prompts, image, mask)
    request.warn(*found.warnings)
    return SmartMaskAnswer(
        mask_base64=base64.b64encode(found.mask).decode(),
        image_id=found.image_id,
        request_id=ticket.request_id,
        score=found.score,
        cached=found.cached,
        points_missed=list(found.points_missed),
        timings=found.timings,
        warnings=request.warnings,
    )


@router.post(
    "/api/smart-mask/cancel/{request_id}",
    response_model=MaskCancelled,
    summary="Cancel a mask request",
)
async def cancel(
    request_id: Annotated[str, Path(description="the one that the request was sent with")],
    services: Services,
    owner: RequestOwner,
) -> Response:
    """End a request that has not been answered; any id is accepted.

    A cancel that comes seconds after the answer changes nothing, and its own answer says so.
    """
    answered = services.masks.answered_lately(owner.name, request_id)
    finish = services.masks.cancel(owner.name, request_id)
    what = "had already been answered" if answered else "marked for cancellation"
    said = quoted(request_id)
    body = MaskCancelled(message=f"Smart mask request {said} {what}", request_id=said)
    return JSONResponse(body.model_dump(), background=BackgroundTask(finish))


@router.post("/api/smart-mask/detect", deprecated=True, summary="Find the most salient object")
async def detect(request: DetectRequest, services: Services, owner: RequestOwner) -> DetectAnswer:
    """Return the mask of the most salient object; use /api/smart-mask with auto_detect instead.

    That there is none, or that the picture cannot be used, is no error here.
    """
    with services.masks.admitted(owner.name, request.request_id) as ticket:
        try:
            image = await _image(request, services, owner)
            found = await services.masks.find(ticket, request.prompts, image)
        except (InvalidInputError, ImageNotFoundError) as error:
            return DetectAnswer(success=False, error=error.detail, warnings=request.warnings)
    mask = base64.b64encode(found.mask).decode()
    return DetectAnswer(success=True, mask=mask, warnings=request.warnings)


@router.post("/api/image-utils/extract-object", summary="Cut an object out")
async def extract_object(
    request: ExtractRequest, services: Services, owner: RequestOwner
) -> ExtractAnswer:
    """Cut out what the mask covers: the picture, upright, with the mask as its alpha."""
    png, *warnings = await services.images.extract(owner.name, request.image, request.mask)
    request.warn(*(warning.decode() for warning in warnings))
    return ExtractAnswer(extracted_image=base64.b64encode(png).decode(), warnings=request.warnings)


async def _image(
    request: SmartMaskRequest | DetectRequest, services: Services, owner: Owner
) -> Picture | str:
    """Return the picture that was sent, or else the image_id.

    Clients send the same picture at every click, so a known upload is recognised and not read.
    """
    if not request.image:
        return request.image_id or ""
    digest = await services.images.digest(request.image)
    known = services.image_store.recognise(owner.name, digest)
    return known or await services.images.upload(owner.name, request.image, digest)
