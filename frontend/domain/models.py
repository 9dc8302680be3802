"""Owns the words of a model's state: its answer to a ping or a cancel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A model's answer to a ping or a cancel."""

    cancelled: bool
    """Whether the model knew the job to cancel, and is ending it."""
    bundle: str
    """Name of the bundle: the weights that the model has loaded."""
    waiting: int
    """Jobs in the model's own queue."""
    running: int
    """Jobs that the model works on."""
    max_queue_size: int
    """Maximum number of jobs in that queue."""


@dataclass(frozen=True, kw_only=True)
class EditModelState(ModelState):
    """image_edit's answer."""

    adapters: frozenset[str]
    """Task types that the bundle can run."""
    image_area: int
    """Pixels of the largest picture that the model computes; larger ones are computed smaller."""
    running_id: str
    """Triton's request id of the job that the engine works on; "" if it is idle."""
    quiet_seconds: float
    """How long the engine has given no sign of life; 0 if it is idle."""


@dataclass(frozen=True, kw_only=True)
class MaskModelState(ModelState):
    """smart_mask's answer."""

    network_answers: bool
    """Whether fastsam answered smart_mask's last question."""
    cache: dict[str, int]
    """Counters of the feature cache, by name."""
