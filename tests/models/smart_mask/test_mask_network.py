from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mask_errors import Code, MaskError
from mask_network import Network

if TYPE_CHECKING:
    from mask_letterbox import Floats

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
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        return image, image


def test_a_call_is_passed_on() -> None:
    fastsam = Fastsam()
    network = Network(fastsam, 32, log_error=print)
    assert network(IMAGE) == (IMAGE, IMAGE)
    assert network.answers()
    assert fastsam.images == [IMAGE]


def test_a_failed_call_is_unavailable_and_noted() -> None:
    fastsam, log = Fastsam(), list[str]()
    network = Network(fastsam, 32, log.append)
    fastsam.error = RuntimeError("Stub process is not healthy")
    with pytest.raises(MaskError) as caught:
        network(IMAGE)
    assert caught.value.code is Code.UNAVAILABLE
    assert "not healthy" not in str(caught.value)
    assert "not healthy" in log[0]
    assert not network.answers()


def test_a_network_that_returns_is_found_by_asking() -> None:
    fastsam = Fastsam()
    network = Network(fastsam, 32, log_error=lambda _: None)
    fastsam.error = RuntimeError("away")
    with pytest.raises(MaskError):
        network(IMAGE)
    assert fastsam.called.acquire(timeout=10)
    fastsam.gate.clear()
    assert not network.answers()
    assert fastsam.called.acquire(timeout=10)
    assert not network.answers()  # one try at a time
    fastsam.error = None
    fastsam.gate.set()
    while not network.answers():
        pass
    assert fastsam.images[1].shape == (1, 3, 32, 32)


def test_a_successful_call_shows_that_it_is_back() -> None:
    fastsam = Fastsam()
    network = Network(fastsam, 32, log_error=lambda _: None)
    fastsam.error = RuntimeError("away")
    with pytest.raises(MaskError):
        network(IMAGE)
    fastsam.error = None
    network(IMAGE)
    assert network.answers()
