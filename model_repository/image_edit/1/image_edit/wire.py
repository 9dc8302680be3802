"""The one thread that talks to clients: every response in order, and whether they are still there.

Two threads on one response sender corrupt responses, and an exception on the way to a client
would leave it waiting for ever; so all sending is here, and so is every way out of a failure.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from image_edit.messages import Failed, Message, Terminal
from model_kit.errors import Code, CodedError

# How soon a client that has left is noticed, in seconds.
POLL_S = 0.02
STOP_TIMEOUT_S = 10.0

Response = TypeVar("Response", contravariant=True)
Stream = TypeVar("Stream", bound=Hashable)


class Sender(Protocol[Response]):
    """What the wire needs of pb_utils.InferenceResponseSender."""

    def send(self, response: Response | None = None, flags: int = 0) -> None:
        """Sends a response; `flags` marks the last."""

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled, left, or let its deadline pass."""


class EditWire(Generic[Stream, Response]):
    """Sends the messages of any number of response streams, each known by a key."""

    def __init__(
        self,
        encode: Callable[[Message], Response],
        final_flag: int,
        on_left: Callable[[Stream], object],
        log_error: Callable[[str], None],
    ) -> None:
        """Starts the thread.

        Args:
            encode: a message as a response.
            final_flag: what `send` needs to be told with a stream's last response.
            on_left: called once per poll for an open stream whose client has gone, cancelled
                it, or let its deadline pass.
            log_error: takes tracebacks.
        """
        self._encode = encode
        self._final_flag = final_flag
        self._on_left = on_left
        self._log_error = log_error
        # Bounded by the jobs that may wait and the messages that each may have.
        self._outbox: queue.SimpleQueue[tuple[Stream, Message] | None] = queue.SimpleQueue()
        self._senders: dict[Stream, Sender[Response]] = {}
        self._thread = threading.Thread(target=self._serve, name="wire", daemon=True)
        self._thread.start()

    def open(self, stream: Stream, sender: Sender[Response]) -> None:
        """Hands over a sender; from now on nobody else may use it."""
        self._senders[stream] = sender

    def post(self, stream: Stream, message: Message) -> None:
        """Has a message sent, after those posted before; a terminal one closes the stream."""
        self._outbox.put((stream, message))

    def stop(self) -> None:
        """Sends what has been posted, then ends the thread."""
        self._outbox.put(None)
        self._thread.join(STOP_TIMEOUT_S)

    def _serve(self) -> None:
        polled = time.monotonic()
        while self._send_next():
            if time.monotonic() - polled >= POLL_S:
                self._poll()
                polled = time.monotonic()

    def _send_next(self) -> bool:
        """Sends one message, if one comes before the next poll is due; False at the end."""
        try:
            item = self._outbox.get(timeout=POLL_S if self._senders else None)
        except queue.Empty:
            return True
        if item is None:
            return False
        self._send(*item)
        return True

    def _send(self, stream: Stream, message: Message) -> None:
        final = isinstance(message, Terminal)
        sender = self._senders.pop(stream) if final else self._senders[stream]
        try:
            sender.send(self._encode(message), self._final_flag if final else 0)
        except Exception:
            self._log_error(traceback.format_exc())
            if not final:
                self._on_left(stream)
            elif not isinstance(message, Failed):
                self._senders[stream] = sender
                lost = CodedError(Code.INTERNAL, "the result could not be sent")
                self._send(stream, Failed(lost))

    def _poll(self) -> None:
        for stream, sender in list(self._senders.items()):
            try:
                left = sender.is_cancelled()
            except Exception:
                self._log_error(traceback.format_exc())
                left = True
            if left:
                self._on_left(stream)
