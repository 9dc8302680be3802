"""Memory on a device that others use too."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch

from image_edit.engine import device as edit_device
from image_edit.engine.device import BESIDE_TORCH, give_back_memory, leave_memory_to_others
from image_edit.engine.engine import EditEngine, EditState
from image_edit.jobs import EditJob, EditJobs
from image_edit.messages import Failed, Message, Succeeded
from image_edit.run import EditRunner
from image_edit.work import Work
from model_kit.errors import Code
from tests.models.image_edit.edits import conditions_of, request_of
from tests.models.image_edit.engine.test_engine import SHIFT

if TYPE_CHECKING:
    from image_edit.engine.bundle import Bundle

GPU = torch.device("cuda:1")


def test_some_memory_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        total_memory = 80 * 2**30

    limits: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction, device: limits.append((fraction, device)),
    )
    leave_memory_to_others(torch.device("cpu"))
    assert limits == []
    leave_memory_to_others(GPU)
    [(fraction, device)] = limits
    assert fraction * Properties.total_memory == pytest.approx(77 * 2**30)
    assert BESIDE_TORCH == 3 * 2**30
    assert device == GPU


@pytest.mark.parametrize("fails", [False, True])
def test_giving_back_never_raises(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    calls: list[None] = []

    def empty_cache() -> None:
        calls.append(None)
        if fails:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    give_back_memory(torch.device("cpu"))
    assert calls == []
    give_back_memory(GPU)
    assert calls == [None]


def test_memory_is_given_back_when_nothing_holds_the_edit_s_tensors(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    states: list[weakref.ref[Any]] = []
    latents: list[weakref.ref[Any]] = []
    alive: list[int] = []
    ended = threading.Event()
    ends: list[Message] = []

    def run_out(state: EditState) -> None:
        states.append(weakref.ref(state))
        latents.append(weakref.ref(state.latents))
        with edit_device.coded_device_errors(torch.device("cpu")):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def give_back() -> None:
        alive.append(sum(each() is not None for each in states + latents))

    def emit(_job: EditJob, message: Message) -> None:
        if isinstance(message, Failed | Succeeded):
            ends.append(message)
            ended.set()

    monkeypatch.setattr(engine, "step", run_out)
    jobs = EditJobs(
        lambda _: conditions_of(),
        EditRunner(engine, "demo").run,
        Work(),
        emit,
        lambda _: None,
        lambda: None,
        max_queue_size=1,
        warm_up=lambda: None,
        give_back_memory=give_back,
    )
    # Whatever only the garbage collector would find is still held.
    gc.disable()
    try:
        jobs.submit(EditJob("", request_of()))
        assert ended.wait(60)
    finally:
        gc.enable()
        jobs.stop()
    [end] = ends
    assert isinstance(end, Failed)
    assert end.error.code is Code.RESOURCE_EXHAUSTED
    assert len(states) == 1
    assert alive == [0]
