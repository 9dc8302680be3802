"""Owns the endpoints of a process that gives jobs to Tritons and serves no client."""

from fastapi import APIRouter, Request

from frontend.http.schemas.system import Health

router = APIRouter()


@router.get("/livez")
async def health() -> Health:
    """Tell that this process answers."""
    return Health()


@router.get("/readyz")
async def ready(request: Request) -> Health:
    """Answer whether one of its Tritons can run an edit now; if not, 503 with the reason."""
    request.app.state.check_ready()
    return Health()
