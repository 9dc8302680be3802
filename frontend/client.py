"""Owns the Python client of the HTTP API: edits (submit, follow, cancel, fetch) and masks."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx
import httpx_sse

from frontend.domain.jobs import JobStatus
from frontend.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Silence for this long is a lost connection, because the server pings an idle stream every few
# seconds.
_SILENCE_TIMEOUT_S = 30.0
_RECONNECTS = 5
# For a server that was there before: `artmancer serve` takes a minute to start again.
_RESTART_S = 120.0
_RECONNECT_PAUSE_S = 1.0
# The status code of what is told before any request.
_BAD_INPUT = 400
_FULL = 503
# What a server answers that stops, and a proxy before one that is away.
_AWAY = (502, _FULL, 504)


class ApiError(Exception):
    """The frontend refused a request, failed, or cannot be reached."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        """HTTP status code; 400 if there can be no such request, None if there was no answer."""


class _LostError(ApiError):
    """There was no answer, or one that says that the frontend is away; it may come back.

    Args:
        away: the request did not reach the frontend, or found it stopping.
    """

    def __init__(self, detail: str, status: int | None = None, *, away: bool) -> None:
        super().__init__(detail, status)
        self.away = away


class _Patience:
    """How often, and for how long, to ask again: of losses in a row."""

    def __init__(self) -> None:
        self._lost = 0
        self._away_since: float | None = None

    def bears(self, error: _LostError) -> bool:
        """Wait a moment and return True, or return False: it is enough."""
        now = time.monotonic()
        if not error.away:
            self._lost += 1
        elif self._away_since is None:
            self._away_since = now
        if self._lost > _RECONNECTS or now - (self._away_since or now) > _RESTART_S:
            return False
        time.sleep(_RECONNECT_PAUSE_S)
        return True


@dataclass(frozen=True)
class JobUpdate:
    """One event of a job."""

    status: JobStatus
    """The job's state."""
    progress: float
    """0..1."""
    current_step: int
    """Denoising steps finished."""
    total_steps: int
    """Denoising steps of the job."""
    error: str | None
    """Why the job ended; None unless it failed or was cancelled."""
    message: str | None
    """What happens before the first step, in words."""
    eta_seconds: float | None
    """Until the job's end; None where it is not known."""


@dataclass(frozen=True)
class Submitted:
    """An edit that the server has taken."""

    task_id: str
    """For `follow`, `result` and `cancel`."""
    warnings: list[str]
    """What the server ignored or doubts in the request, a sentence each."""


class Client:
    """A connection to one frontend.

    Args:
        url: its address, `http://host:port`. A proxy that the environment names is not asked for
            one on this machine.
        key: the API key to send; empty: none.

    Raises:
        ApiError: this is no address, or no key, or the environment names a proxy or certificates
            that cannot be used.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url
        self._was_there = False
        if not _is_address(url):
            # Not quoted: it may hold a password.
            raise ApiError("url is no address such as http://127.0.0.1:8080", _BAD_INPUT)
        if not (key.isascii() and key.isprintable()):
            raise ApiError("the API key has characters that no key has", _BAD_INPUT)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=url, headers=headers, timeout=_SILENCE_TIMEOUT_S, transport=_direct(url)
            )
        except (httpx.InvalidURL, ImportError, OSError, ValueError) as error:
            # The environment's: a proxy that is none or of an unknown kind, or certificates that
            # are not there.
            raise ApiError(f"HTTP cannot be set up: {error}", _BAD_INPUT) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, request: Mapping[str, Any]) -> Submitted:
        """Start an edit.

        If the answer is lost, ask again by a key, so that there is one edit and no second.

        Args:
            request: the fields of GenerationRequest; images in base64.

        Raises:
            ApiError: the request was refused.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        path = "/api/generate/async"
        answer = self._ask("POST", path, json=dict(request), headers=headers)
        return Submitted(answer["task_id"], answer["warnings"])

    def follow(self, task_id: str) -> Iterator[JobUpdate]:
        """Yield the job's events, each once and in order; the last one is its end.

        After a lost connection, connect again and continue with the next event. A server that was
        there and starts again is waited for, for two minutes.

        Raises:
            ApiError: no such job, or the connection was lost for good.
        """
        last_id, patience = "", _Patience()
        while True:
            try:
                for event in self._events(task_id, last_id):
                    # Empty for an event that is not in the log and comes first on its connection.
                    last_id, patience = event.id or last_id, _Patience()
                    update = _update(event.json())
                    yield update
                    if update.status.terminal:
                        return
                lost = _LostError("the stream ended before the job did", away=False)
            except _LostError as error:
                lost = error
            if not self._was_there:
                raise lost
            if not patience.bears(lost):
                raise ApiError(f"lost the event stream of task {task_id}: {lost}", lost.status)

    def cancel(self, task_id: str) -> None:
        """Cancel a job; a finished one stays as it is.

        Raises:
            ApiError: no such job.
        """
        self._call("POST", f"/api/generate/async/cancel/{_segment(task_id)}")

    def result(self, task_id: str, *, debug: bool = False) -> dict[str, Any]:
        """Return the result of a job that is done: `image` (PNG, base64) and more.

        Args:
            task_id: the job.
            debug: whether to fetch `debug_info` too, whose pictures are most of the bytes.

        Raises:
            ApiError: the job is not done.
        """
        params = {"debug": str(debug).lower()}
        return self._ask("GET", f"/api/generate/result/{_segment(task_id)}", params=params)

    def status(self, task_id: str) -> dict[str, Any]:
        """Return the fields of a job's TaskStatus.

        Raises:
            ApiError: no such job.
        """
        return self._ask("GET", f"/api/generate/status/{_segment(task_id)}")

    def tasks(self, **query: Any) -> dict[str, Any]:
        """Return a page of jobs, newest first: `tasks` and `next_before`.

        Args:
            query: `status`, `limit`, `before`; see GET /api/generate.

        Raises:
            ApiError: the request was refused.
        """
        return self._ask("GET", "/api/generate", params=query)

    def mask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a mask: `mask_base64` (PNG), `image_id`, `request_id`, `score` and more.

        Args:
            request: the fields of SmartMaskRequest; images in base64.

        Raises:
            ApiError: the request was refused, or nothing was found.
        """
        return self._call("POST", "/api/smart-mask", json=dict(request))

    def cancel_mask(self, request_id: str) -> None:
        """End a mask request that has not been answered, if there is one of that id.

        Raises:
            ApiError: the frontend cannot be reached.
        """
        self._call("POST", f"/api/smart-mask/cancel/{_segment(request_id)}")

    def _events(self, task_id: str, last_id: str) -> Iterator[httpx_sse.ServerSentEvent]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        path = f"/api/generate/stream/{_segment(task_id)}"
        with (
            self._failures(),
            httpx_sse.connect_sse(self._http, "GET", path, headers=headers) as source,
        ):
            self._check(source.response)
            if not source.response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise self._stranger(path)
            for event in source.iter_sse():
                if event.data:  # the event's number comes in a block without data
                    yield event

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Do as `_call`; ask a server again that was there and is away, as `follow` does."""
        patience = _Patience()
        while True:
            try:
                return self._call(method, path, **options)
            except _LostError as error:
                if not self._was_there or not patience.bears(error):
                    raise

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with self._failures():
            response = self._http.request(method, path, **options)
        self._check(response)
        try:
            answer: dict[str, Any] = response.json()
        except ValueError as error:
            raise self._stranger(path) from error
        return answer

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what httpx raises into this module's errors."""
        try:
            yield
        except httpx.TransportError as error:
            away = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            hint = "" if self._was_there or not away else "; `artmancer serve` starts one"
            self._was_there |= not away
            problem = f"{str(error) or type(error).__name__}{hint}"
            raise _LostError(f"no frontend answers at {self._url}: {problem}", away=away) from error
        except (httpx.InvalidURL, ValueError) as error:
            # Such as a number or a character that JSON cannot hold.
            raise ApiError(f"this cannot be sent: {error}", _BAD_INPUT) from error

    def _check(self, response: httpx.Response) -> None:
        """Raise what a refusal says."""
        status = response.status_code
        # A frontend that is full answers a POST so, and its user should know at once.
        away = status in _AWAY and not (status == _FULL and response.request.method == "POST")
        self._was_there |= not away
        if not response.is_error:
            return
        response.read()
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = " ".join(response.text[:300].split()) or response.reason_phrase
        raise _LostError(detail, status, away=True) if away else ApiError(detail, status)

    def _stranger(self, path: str) -> ApiError:
        return ApiError(f"what answers at {self._url} is no ArtMancer: {path}")


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
        named = bool(parsed.host.encode("idna"))
    except (httpx.InvalidURL, UnicodeError):
        return False
    return named and parsed.scheme in ("http", "https") and 0 <= (parsed.port or 0) < 2**16


def _segment(name: str) -> str:
    """Return an id as one segment of a path, whatever its characters."""
    # Two dots would name the folder above.
    return quote(name, safe="", errors="replace").replace(".", "%2E")


def _direct(url: str) -> httpx.HTTPTransport | None:
    """Return what keeps the environment's proxies from a server on this machine; None elsewhere.

    They are on another, and would ask themselves.
    """
    return httpx.HTTPTransport() if is_loopback(httpx.URL(url).host) else None


def _update(event: Mapping[str, Any]) -> JobUpdate:
    return JobUpdate(
        status=JobStatus(event["status"]),
        progress=event["progress"],
        current_step=event["current_step"],
        total_steps=event["total_steps"],
        error=event["error"],
        message=event.get("loading_message"),
        eta_seconds=event.get("eta_seconds"),
    )
