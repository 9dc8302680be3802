"""Owns the endpoints about the server itself."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from frontend.errors import TritonDownError
from frontend.http.dependencies import REFUSALS, Services
from frontend.http.schemas.system import Health, SystemHealth

router = APIRouter(tags=["system"], responses=REFUSALS)


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Lead somebody who opened the server in a browser to its documentation."""
    return RedirectResponse("docs")  # relative, so that it holds behind a proxy's prefix too


@router.get("/ping", summary="Ask whether the frontend answers, by another name")
@router.get("/api/health", summary="Ask whether the frontend answers, by the web client's name")
@router.get("/livez", summary="Ask whether the frontend answers")
async def health() -> Health:
    """Tell that this process answers."""
    return Health()


@router.get("/readyz", summary="Ask whether Triton can run an edit and make a mask")
async def ready(services: Services) -> Health:
    """Answer whether Triton can run an edit and make a mask now; if not, 503 with the reason.

    A full queue or a full disk refuses edits only until there is room: a submission is told so
    itself, and all else goes on. So it is no reason to send no client here.
    """
    await services.board.look()
    services.board.require()
    services.masks.require()
    return Health()


@router.get("/readyz/store", summary="Ask whether the jobs can be reached")
async def store_ready(services: Services) -> Health:
    """Answer whether this frontend reaches its jobs, whatever the Tritons do; if not, 503."""
    await services.jobs.newest("", limit=1)
    return Health()


@router.get("/api/system/health", summary="Ask how each part is")
async def system_health(services: Services) -> SystemHealth:
    """Tell how each part is."""
    parts = {
        "generation": _generation(services),
        "segmentation": _segmentation(services),
        "image_utils": {"status": "healthy"},
        "job_manager": {
            "status": "healthy",
            "waiting": services.board.waiting,
            "running": services.board.running,
        },
    }
    healthy = all(part["status"] == "healthy" for part in parts.values())
    return SystemHealth(status="healthy" if healthy else "degraded", services=parts)


def _generation(services: Services) -> dict[str, Any]:
    try:
        states = services.board.require()
    except TritonDownError as error:
        return {"status": "unhealthy", "reason": error.detail}
    taken_by = services.board.taken_by
    working_on = f"an engine still works on {', '.join(taken_by)}, which has ended"
    return {
        **({"status": "degraded", "reason": working_on} if taken_by else {"status": "healthy"}),
        "bundle": states[0].bundle,
        "adapters": sorted(states[0].adapters),
        "tritons": len(services.board.tritons),
        "tritons_ready": len(states),
    }


def _segmentation(services: Services) -> dict[str, Any]:
    try:
        states = services.masks.require()
    except TritonDownError as error:
        return {"status": "unhealthy", "reason": error.detail}
    return {
        "status": "healthy",
        "model": states[0].bundle,
        "tritons": services.masks.tritons,
        "tritons_ready": len(states),
        "waiting": services.masks.waiting,
        "running": services.masks.running,
        "cache": {name: sum(state.cache[name] for state in states) for name in states[0].cache},
        "image_store": {"images": len(services.image_store), "bytes": services.image_store.size},
    }
