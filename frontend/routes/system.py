"""Owns the endpoints about the server itself, and those it knows of but does not build."""

from typing import Any

from fastapi import APIRouter

from frontend.errors import UnsupportedError
from frontend.routes.dependencies import REFUSALS, Serving
from frontend.schemas import Health, SystemHealth

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
    """Tell whether an edit would be accepted by Triton now; 503 with the reason where not."""
    serving.watch.require()
    return Health()


@router.get("/api/system/health")
async def system_health(serving: Serving) -> SystemHealth:
    """Tell how each part is."""
    edits, state = serving.edits, serving.watch.state
    generation: dict[str, Any]
    jobs = {"status": "healthy", "waiting": edits.waiting, "running": edits.running}
    if state is None:
        generation = {"status": "unhealthy", "reason": serving.watch.reason}
    else:
        generation = {
            "status": "healthy",
            "bundle": state.bundle,
            "adapters": sorted(state.adapters),
        }
    return SystemHealth(
        status="degraded" if state is None else "healthy",
        services={"generation": generation, "job_manager": jobs},
    )


@router.post("/api/generate/multi-steps")
@router.post("/api/image-utils/white-balance")
@router.api_route("/api/debug/{path:path}", methods=_ALL_METHODS, include_in_schema=False)
async def not_built() -> None:
    """Answer 501: these endpoints of the contract are optional."""
    raise UnsupportedError("This endpoint is not implemented")
