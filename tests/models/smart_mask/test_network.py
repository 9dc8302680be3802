from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_kit.errors import Code, CodedError
from smart_mask.network import FastsamClient

if TYPE_CHECKING:
    from smart_mask.letterbox import Floats

IMAGE = np.ones((1, 3, 32, 32), np.float32)


class Fastsam:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.images: list[Floats] = []
        self.called = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, image: Floats) -> tuple[Floats, Floats]:
        self.images.append(image)
        self.called.release()
        assert self.gate.wait(60)
        if self.error:
            raise self.error
        return image, image


def test_a_call_is_passed_on() -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=print)
    assert network(IMAGE) == (IMAGE, IMAGE)
    assert network.answers()
    assert fastsam.images == [IMAGE]


def test_a_failed_call_is_unavailable_and_noted() -> None:
    fastsam, log = Fastsam(), list[str]()
    network = FastsamClient(fastsam, 32, log.append)
    fastsam.error = RuntimeError("Stub process is not healthy")
    with pytest.raises(CodedError) as caught:
        network(IMAGE)
    assert caught.value.code is Code.UNAVAILABLE
    assert "not healthy" not in str(caught.value)
    assert "not healthy" in log[0]
    assert not network.answers()


def test_a_network_that_returns_is_found_by_asking() -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=lambda _: None)
    fastsam.error = RuntimeError("away")
    with pytest.raises(CodedError):
        network(IMAGE)
    assert fastsam.called.acquire(timeout=60)
    fastsam.gate.clear()
    assert not network.answers()
    assert fastsam.called.acquire(timeout=60)
    assert not network.answers()  # one try at a time
    fastsam.error = None
    fastsam.gate.set()
    while not network.answers():
        pass
    assert fastsam.images[1].shape == (1, 3, 32, 32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("smart_mask.network.time.monotonic", lambda: now[0])
    return now


def test_how_long_it_has_failed_is_counted_from_the_first_failure(clock: list[float]) -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=lambda _: None)
    network(IMAGE)
    assert network.silent_seconds() == 0
    fastsam.error = RuntimeError("CUDA error")
    for _ in range(3):
        clock[0] += 50
        with pytest.raises(CodedError):
            network(IMAGE)
    assert network.silent_seconds() == 100
    fastsam.error = None
    network(IMAGE)
    assert network.silent_seconds() == 0


def test_a_call_without_an_answer_counts_too(clock: list[float]) -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=lambda _: None)
    network(IMAGE)
    fastsam.called.acquire(timeout=60)
    fastsam.gate.clear()
    calling = threading.Thread(target=network, args=(IMAGE,))
    calling.start()
    assert fastsam.called.acquire(timeout=60)
    clock[0] += 400
    assert network.silent_seconds() == 400
    fastsam.gate.set()
    calling.join(60)
    assert network.silent_seconds() == 0


def test_a_network_that_never_answered_is_not_waited_for(clock: list[float]) -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=lambda _: None)
    fastsam.error = RuntimeError("no memory")
    with pytest.raises(CodedError):
        network(IMAGE)
    clock[0] += 1000
    assert network.silent_seconds() == 0


def test_a_successful_call_shows_that_it_is_back() -> None:
    fastsam = Fastsam()
    network = FastsamClient(fastsam, 32, log_error=lambda _: None)
    fastsam.error = RuntimeError("away")
    with pytest.raises(CodedError):
        network(IMAGE)
    fastsam.error = None
    network(IMAGE)
    assert network.answers()
