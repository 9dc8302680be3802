from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from image_edit.errors import cancelled
from image_edit.messages import Answered, Failed, Message, Progressed, Stage, Succeeded
from image_edit.wire import EditWire
from model_kit.errors import Code, CodedError

if TYPE_CHECKING:
    from collections.abc import Iterator

FINAL = 1
STEP = Progressed(Stage.DENOISING, 1, 3, 0.5)
DONE = Succeeded(3, b"png", "{}")


class FakeSender:
    """A response sender whose client can leave, and which can fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, int]] = []
        self.threads: set[int] = set()
        self.closed = threading.Event()
        self.left = False
        self.failures = 0
        self.says = "no memory left"
        self.broken = False

    def send(self, response: object = None, flags: int = 0) -> None:
        self.threads.add(threading.get_ident())
        if self.failures:
            self.failures -= 1
            raise OSError(self.says)
        self.sent.append((response, flags))
        if flags == FINAL:
            self.closed.set()

    def is_cancelled(self) -> bool:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise OSError("the stub is going away")
        return self.left


class Bench:
    """A wire whose responses are the messages themselves."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.unsendable: list[tuple[str, str]] = []
        self.noticed = threading.Event()
        self.errors: list[str] = []
        self.wire: EditWire[str, object] = EditWire(
            self._encode, FINAL, self._on_left, self._on_unsendable, self.errors.append
        )

    def _encode(self, message: Message) -> object:
        return message

    def _on_left(self, stream: str) -> None:
        self.left.append(stream)
        self.noticed.set()

    def _on_unsendable(self, stream: str, error: CodedError) -> None:
        self.unsendable.append((stream, str(error)))
        self.noticed.set()

    def open(self, stream: str = "a") -> FakeSender:
        sender = FakeSender()
        self.wire.open(stream, sender)
        return sender


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.wire.stop()


def test_messages_are_sent_in_order_and_the_last_with_the_final_flag(bench: Bench) -> None:
    sender = bench.open()
    for message in (STEP, STEP, DONE):
        bench.wire.post("a", message)
    assert sender.closed.wait(30)
    assert sender.sent == [(STEP, 0), (STEP, 0), (DONE, FINAL)]


@pytest.mark.parametrize("last", [DONE, Answered("{}"), Failed(cancelled())])
def test_every_terminal_message_closes_its_stream_in_one_send(bench: Bench, last: Message) -> None:
    sender = bench.open()
    bench.wire.post("a", last)
    assert sender.closed.wait(30)
    assert sender.sent == [(last, FINAL)]


def test_one_thread_does_everything_for_all_streams(bench: Bench) -> None:
    senders = {stream: bench.open(stream) for stream in "abcdef"}

    def post(stream: str) -> None:
        for _ in range(20):
            bench.wire.post(stream, STEP)
        bench.wire.post(stream, DONE)

    threads = [threading.Thread(target=post, args=(stream,)) for stream in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sender in senders.values():
        assert sender.closed.wait(30)
        assert len(sender.sent) == 21
    assert len(set().union(*(sender.threads for sender in senders.values()))) == 1


def test_a_client_that_leaves_is_noticed_soon(bench: Bench) -> None:
    sender, other = bench.open("a"), bench.open("b")
    bench.wire.post("a", STEP)
    sender.left = True
    assert bench.noticed.wait(60)
    assert set(bench.left) == {"a"}
    assert other.sent == []


def test_a_client_that_leaves_is_noticed_under_a_flood_of_messages(bench: Bench) -> None:
    bench.open("busy")
    bench.open("a").left = True
    deadline = time.monotonic() + 30
    while not bench.noticed.is_set():
        assert time.monotonic() < deadline
        bench.wire.post("busy", STEP)
        time.sleep(0.001)


def test_a_wire_is_busy_while_a_stream_is_open(bench: Bench) -> None:
    assert not bench.wire.is_busy()
    senders = {stream: bench.open(stream) for stream in "ab"}
    for stream, sender in senders.items():
        assert bench.wire.is_busy()
        bench.wire.post(stream, DONE)
        assert sender.closed.wait(30)
    assert not bench.wire.is_busy()


def test_a_closed_stream_is_not_watched(bench: Bench) -> None:
    sender = bench.open("a")
    bench.open("b").left = True
    bench.wire.post("a", DONE)
    assert sender.closed.wait(30)
    sender.left = True
    assert bench.noticed.wait(30)
    time.sleep(0.1)
    assert set(bench.left) == {"b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no memory left", "[INTERNAL] the progress could not be sent"),
        (
            "Failed to increase the shared memory pool size",
            "[UNAVAILABLE] Triton's shared memory, /dev/shm, is full",
        ),
    ],
)
def test_a_step_that_cannot_be_sent_ends_its_edit_with_the_reason(
    bench: Bench, text: str, told: str
) -> None:
    sender = bench.open()
    sender.failures, sender.says = 1, text
    bench.wire.post("a", STEP)
    assert bench.noticed.wait(30)
    assert (bench.unsendable, bench.left) == ([("a", told)], [])
    bench.wire.post("a", Failed(cancelled()))
    assert sender.closed.wait(30)
    assert text in bench.errors[0]


def test_a_result_that_cannot_be_sent_becomes_an_error(bench: Bench) -> None:
    sender = bench.open()
    sender.failures = 1
    bench.wire.post("a", DONE)
    assert sender.closed.wait(30)
    (last, _) = sender.sent[-1]
    assert isinstance(last, Failed)
    assert last.error.code is Code.INTERNAL


def test_nothing_that_fails_stops_the_wire(bench: Bench) -> None:
    sender, other = bench.open("a"), bench.open("b")
    sender.failures = 5
    sender.broken = True
    bench.wire.post("a", STEP)
    bench.wire.post("a", DONE)
    bench.open("c").broken = True
    assert bench.noticed.wait(30)
    bench.wire.post("b", DONE)
    assert other.closed.wait(30)
    assert sender.sent == []


def test_the_process_does_not_outlive_the_wire(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    bench.wire.post("a stream that nobody opened", Failed(cancelled()))
    bench.wire._thread.join(60)
    assert ends == [1]
    assert "wire ended unasked" in bench.errors[-1]


def test_stopping_sends_what_was_posted() -> None:
    bench = Bench()
    sender = bench.open()
    bench.wire.post("a", STEP)
    bench.wire.post("a", Failed(CodedError(Code.UNAVAILABLE, "going away")))
    bench.wire.stop()
    assert len(sender.sent) == 2
