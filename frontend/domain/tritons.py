"""Owns the words of a Triton as the process that gives it jobs tells others of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class TritonState:
    """How one Triton stands."""

    url: str
    """host:port of its gRPC, as other processes reach it."""
    places: int
    """Jobs that it is given at a time."""
    reason: str = ""
    """Why it can run no edit now; empty: it can."""
    loading: str | None = None
    """What it is loading, in words; None if it has not written that."""
    bundle: str = ""
    """Name of the bundle that the model has loaded; empty before its first answer."""
    adapters: tuple[str, ...] = ()
    """Task types that the bundle can run."""
    image_area: int | None = None
    """Pixels of the largest picture that the model computes; None before its first answer."""
    seconds_per_unit: float | None = None
    """What one step of one pixel takes, as edits have shown; None before the first one."""
    taken_by: str = ""
    """The ended job that the engine still works on."""
    running: Mapping[str, float | None] = field(default_factory=dict)
    """The seconds that each of its jobs still needs of the engine, by id; None if unknown."""

    @property
    def ready(self) -> bool:
        """Whether it can run an edit now."""
        return not self.reason
