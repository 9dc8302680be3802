"""Owns the optional endpoints of the contract that this server does not build."""

from fastapi import APIRouter

from frontend.errors import UnsupportedError
from frontend.http.dependencies import KEY, REFUSALS

router = APIRouter(tags=["not built"], dependencies=KEY, responses=REFUSALS)

_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@router.post("/api/generate/multi-steps", summary="Several edits in a row: not built")
@router.post("/api/image-utils/white-balance", summary="White balance by numbers: not built")
@router.api_route("/api/debug/{path:path}", methods=_ALL_METHODS, include_in_schema=False)
async def not_built() -> None:
    """Answer 501: these endpoints of the contract are optional."""
    raise UnsupportedError("This endpoint is not implemented")
