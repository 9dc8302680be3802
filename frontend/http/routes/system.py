"""Owns the endpoints about the server itself, and those it knows of but does not build."""

from typing import Any

from fastapi import APIRouter

from frontend.errors import TritonAwayError, UnsupportedError
from frontend.http.dependencies import REFUSALS, Services, Serving
from frontend.http.schemas.edits import Health, SystemHealth

router = APIRouter(tags=["system"], responses=REFUSALS)

_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@router.get("/ping")
@router.get("/livez")
@router.get("/api/health")
async def health() -> Health:
    """Tell that this process answers."""
    return Health()


@router.get("/readyz")
async def ready(serving: Serving) -> Health:
    """Tell whether Triton would accept an edit and a mask now; 503 with the reason where not."""
    serving.edits.require()
    serving.masks.require()
    return Health()


@router.get("/api/system/health")
async def system_health(serving: Serving) -> SystemHealth:
    """Tell how each part is."""
    services = {
        "generation": _generation(serving),
        "segmentation": _segmentation(serving),
        "image_utils": {"status": "healthy"},
        "job_manager": {
            "status": "healthy",
            "waiting": serving.edits.waiting,
            "running": serving.edits.running,
        },
    }
    healthy = all(service["status"] == "healthy" for service in services.values())
    return SystemHealth(status="healthy" if healthy else "degraded", services=services)


@router.post("/api/generate/multi-steps")
@router.post("/api/image-utils/white-balance")
@router.api_route("/api/debug/{path:path}", methods=_ALL_METHODS, include_in_schema=False)
async def not_built() -> None:
    """Answer 501: these endpoints of the contract are optional."""
    raise UnsupportedError("This endpoint is not implemented")


def _generation(serving: Services) -> dict[str, Any]:
    try:
        states = serving.edits.require()
    except TritonAwayError as error:
        return {"status": "unhealthy", "reason": error.detail}
    return {
        "status": "healthy",
        "bundle": states[0].bundle,
        "adapters": sorted(states[0].adapters),
        "tritons": serving.edits.tritons,
        "tritons_ready": len(states),
    }


def _segmentation(serving: Services) -> dict[str, Any]:
    try:
        states = serving.masks.require()
    except TritonAwayError as error:
        return {"status": "unhealthy", "reason": error.detail}
    return {
        "status": "healthy",
        "model": states[0].bundle,
        "waiting": serving.masks.waiting,
        "running": serving.masks.running,
        "cache": {name: sum(state.cache[name] for state in states) for name in states[0].cache},
        "image_store": {"images": len(serving.image_store), "bytes": serving.image_store.size},
    }
