"""Owns an HTTP server that plays the frontend from a script, to test what talks to it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from PIL import Image

from frontend.http import sse

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK = "task-1"
DROP = "drop"  # in a script: close the connection here
AWAY_PAGE = b"<html>\r\n<p>Bad\r\n"


@dataclass
class Note:
    """In a script: an event that is not in the log, and so has no number."""

    event: dict[str, Any]


def event(status: str, step: int = 0, error: str | None = None) -> dict[str, Any]:
    """Return an event of a job of two steps."""
    return {
        "task_id": TASK,
        "status": status,
        "progress": 1.0 if status == "done" else step / 3,
        "current_step": step,
        "total_steps": 2,
        "error": error,
        "loading_message": None if step else "Preparing",
        "queue_position": 3 if status == "queued" else None,
        "eta_seconds": 12.4 if status in ("queued", "processing") else None,
    }


def picture(mode: str = "RGB", colour: str | int = "red") -> bytes:
    """Return a PNG of 4 x 4 pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Script:
    """What the server answers, and what it was asked."""

    events: list[Any] = field(default_factory=list)
    """The job's log: events, and between them DROP, Note, and the status codes of refusals, which
    answer a request for the rest."""
    refusal: tuple[int, bytes] | None = None
    """Status and body for every submission; None: submissions are accepted."""
    hold: bool = False
    """Keep the stream open after the last scripted event until the job is cancelled, and a mask
    request without an answer."""
    warnings: list[str] = field(default_factory=list)
    """What the answer to a submission says of it."""
    mask_warnings: list[str] = field(default_factory=list)
    """What the answer to a mask request says of it."""
    points_missed: list[int] = field(default_factory=list)
    """What the answer to a mask request says of its points."""
    submitted: dict[str, Any] = field(default_factory=dict)
    """Body of the last submission of an edit."""
    masks: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the mask requests."""
    last_event_ids: list[str | None] = field(default_factory=list)
    """That header of each connection to the stream, in order."""
    streaming: threading.Event = field(default_factory=threading.Event)
    masking: threading.Event = field(default_factory=threading.Event)
    """Set once a mask was asked for."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set once the job or the mask request was cancelled."""
    cancel_path: str = ""
    """Where that cancel went."""
    ignore_cancel: bool = False
    """Answer no cancel."""
    pages: list[dict[str, Any]] = field(default_factory=list)
    """The answers to requests for a list of jobs, in order."""
    queries: list[str] = field(default_factory=list)
    """The query strings of those requests."""
    authorizations: list[str | None] = field(default_factory=list)
    """That header of each request, in order."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over."""
    submitting: threading.Event = field(default_factory=threading.Event)
    """Set once an edit was submitted."""
    lost_answers: int = 0
    """To how many submissions and fetches of a result the connection ends without an answer."""
    refused_fetches: list[int] = field(default_factory=list)
    """The status codes that answer the first fetches of a result."""
    fetching: threading.Event = field(default_factory=threading.Event)
    """Set once a result was asked for."""
    keys: list[str | None] = field(default_factory=list)
    """The Idempotency-Key of each submission, in order."""
    accept: threading.Event | None = None
    """Where set, the answer to a submission waits for it."""


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """Play `script`; yields the server's URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _player(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        script.ended.set()
        script.cancelled.set()
        if script.accept:
            script.accept.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _player(script: Script) -> type[BaseHTTPRequestHandler]:
    logged = (dict, Note)
    breaks = [n for n, entry in enumerate(script.events) if not isinstance(entry, logged)]

    class Player(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def loses_its_answer(self) -> bool:
            script.lost_answers -= 1
            self.close_connection = script.lost_answers >= 0
            return self.close_connection

        def do_POST(self) -> None:
            script.authorizations.append(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "/cancel/" in self.path:
                script.cancel_path = self.path
                script.cancelled.set()
                if script.ignore_cancel:
                    script.ended.wait()
                self.answer(200, b"{}")
            elif script.refusal is not None:
                self.answer(*script.refusal)
            else:
                if self.path == "/api/smart-mask":
                    script.masks.append(json.loads(body))
                    self.mask()
                    return
                script.submitted = json.loads(body)
                script.keys.append(self.headers.get("Idempotency-Key"))
                script.submitting.set()
                if self.loses_its_answer():
                    return
                if script.accept:
                    script.accept.wait()
                answer = {"task_id": TASK, "warnings": script.warnings}
                self.answer(200, json.dumps(answer).encode())

        def do_GET(self) -> None:
            script.authorizations.append(self.headers.get("Authorization"))
            if self.path == f"/api/generate/stream/{TASK}":
                self.stream()
            elif self.path.partition("?")[0] == f"/api/generate/result/{TASK}":
                script.fetching.set()
                if self.loses_its_answer():
                    return
                if script.refused_fetches:
                    self.answer(script.refused_fetches.pop(0), AWAY_PAGE)
                    return
                image = base64.b64encode(picture()).decode()
                self.answer(200, json.dumps({"image": image, "generation_time": 1.25}).encode())
            elif self.path == f"/api/generate/status/{TASK}":
                self.answer(200, json.dumps(script.events[-1]).encode())
            elif self.path.partition("?")[0] == "/api/generate":
                script.queries.append(self.path.partition("?")[2])
                self.answer(200, json.dumps(script.pages.pop(0)).encode())
            else:
                self.answer(
                    404,
                    json.dumps(
                        {"detail": f"Task {self.path.rpartition('/')[2]} not found"}
                    ).encode(),
                )

        def mask(self) -> None:
            script.masking.set()
            if script.hold:
                script.cancelled.wait()
                self.answer(400, b'{"detail": "Segmentation request was cancelled"}')
                return
            mask = base64.b64encode(picture("L", 255)).decode()
            answer = {"mask_base64": mask, "image_id": "id", "score": 0.875}
            answer |= {"points_missed": script.points_missed, "warnings": script.mask_warnings}
            self.answer(200, json.dumps(answer).encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stream(self) -> None:
            last_id = self.headers.get("Last-Event-ID")
            script.last_event_ids.append(last_id)
            rest = [
                (number, entry)
                for number, entry in enumerate(script.events)
                if number > int(last_id or -1) and (isinstance(entry, logged) or number in breaks)
            ]
            if rest and isinstance(rest[0][1], int):
                number, status = rest[0]
                breaks.remove(number)
                self.answer(status, AWAY_PAGE)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(sse.ONE_BLOCK.ping)
            for number, entry in rest:
                if isinstance(entry, int):
                    return
                if entry == DROP:
                    breaks.remove(number)
                    return
                if isinstance(entry, Note):
                    self.wfile.write(sse.note(json.dumps(entry.event)))
                    continue
                self.wfile.write(sse.one_block(number, json.dumps(entry)))
            script.streaming.set()
            if script.hold:
                script.cancelled.wait()
                if script.ended.is_set():  # the server goes, and nobody has cancelled
                    return
                end = json.dumps(event("cancelled", error="Generation cancelled by user"))
                self.wfile.write(sse.one_block(99, end))

    return Player
