"""Owns the words of a model's state: its answer to a ping or a cancel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A model's answer to a ping or a cancel.

    Attributes:
        cancelled: whether the job named by the request was found and told to stop.
        bundle: name of the loaded weights.
        waiting: jobs in the model's own queue.
        running: jobs that the model works on.
        max_queue_size: most jobs its queue takes.
    """

    cancelled: bool
    bundle: str
    waiting: int
    running: int
    max_queue_size: int


@dataclass(frozen=True, kw_only=True)
class EditModelState(ModelState):
    """image_edit's answer.

    Attributes:
        adapters: task types that the bundle can run.
    """

    adapters: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class MaskModelState(ModelState):
    """smart_mask's answer.

    Attributes:
        network_answers: whether fastsam answered it the last time.
        cache: counters of its cache of features, by name.
    """

    network_answers: bool
    cache: dict[str, int]
