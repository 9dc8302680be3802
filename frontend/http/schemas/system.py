"""Owns the JSON of answers about the server itself, as documented at /docs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class SystemHealth(BaseModel):
    """The health of all parts."""

    status: Literal["healthy", "degraded"]
    services: Annotated[
        dict[str, dict[str, Any]],
        Field(
            description="by name, each with its details and a status: healthy, degraded, unhealthy"
        ),
    ]


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"
    service: str = "artmancer"
