"""Owns the one thread that sends responses to clients and notices clients that leave.

Two threads on one response sender corrupt responses. An exception while sending would leave a
client waiting for ever. So all sending is here, and so is every way out of a failure.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from image_edit.messages import Failed, Message, Terminal
from model_kit.crash_only import guarded
from model_kit.errors import Code, CodedError, full_shared_memory

# Seconds until the thread notices a client that has left.
POLL_S = 0.02
STOP_TIMEOUT_S = 10.0

Response = TypeVar("Response", contravariant=True)
Stream = TypeVar("Stream", bound=Hashable)


class Sender(Protocol[Response]):
    """What the wire needs of pb_utils.InferenceResponseSender."""

    def send(self, response: Response | None = None, flags: int = 0) -> None:
        """Send a response; `flags` marks the last."""

    def is_cancelled(self) -> bool:
        """Return whether the client has cancelled, left, or let its deadline pass."""


class EditWire(Generic[Stream, Response]):
    """Sends the messages of any number of response streams, each named by a key."""

    def __init__(
        self,
        encode: Callable[[Message], Response],
        final_flag: int,
        on_left: Callable[[Stream], object],
        on_unsendable: Callable[[Stream, CodedError], object],
        log_error: Callable[[str], None],
    ) -> None:
        """Start the thread.

        Args:
            encode: turns a message into a response.
            final_flag: passed to `send` with a stream's last response.
            on_left: called once per poll for an open stream whose client has left, cancelled it,
                or let its deadline pass.
            on_unsendable: called for an open stream of which a message could not be sent, with
                the error that its end is to have.
            log_error: takes tracebacks.
        """
        self._encode = encode
        self._final_flag = final_flag
        self._on_left = on_left
        self._on_unsendable = on_unsendable
        self._log_error = log_error
        # Needs no bound of its own: the jobs that may wait and the messages of each are bounded.
        self._outbox: queue.SimpleQueue[tuple[Stream, Message] | None] = queue.SimpleQueue()
        self._senders: dict[Stream, Sender[Response]] = {}
        self._stopping = False
        self._thread = threading.Thread(
            target=guarded("wire", self._serve, lambda: self._stopping, log_error),
            name="wire",
            daemon=True,
        )
        self._thread.start()

    def open(self, stream: Stream, sender: Sender[Response]) -> None:
        """Take over a sender; from now on nobody else may use it."""
        self._senders[stream] = sender

    def is_busy(self) -> bool:
        """Return whether a stream is open, by any thread."""
        return bool(self._senders)

    def post(self, stream: Stream, message: Message) -> None:
        """Send a message after all that were posted before; a terminal one closes the stream."""
        self._outbox.put((stream, message))

    def stop(self) -> None:
        """Send what has been posted, then end the thread."""
        self._stopping = True
        self._outbox.put(None)
        self._thread.join(STOP_TIMEOUT_S)

    def _serve(self) -> None:
        polled = time.monotonic()
        while self._send_next():
            if time.monotonic() - polled >= POLL_S:
                self._poll()
                polled = time.monotonic()

    def _send_next(self) -> bool:
        """Send one message, if one comes before the next poll is due; return False at the end."""
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
        except Exception as error:
            self._log_error(traceback.format_exc())
            lost = full_shared_memory(str(error)) or CodedError(
                Code.INTERNAL, f"the {'result' if final else 'progress'} could not be sent"
            )
            if not final:
                self._on_unsendable(stream, lost)
            elif not isinstance(message, Failed):
                self._senders[stream] = sender
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
