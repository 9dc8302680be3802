"""Owns the Python client of the HTTP API: edits (submit, follow, cancel, fetch) and masks."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
import httpx_sse

from frontend.domain.jobs import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Silence for this long is a lost connection, because the server pings an idle stream every few
# seconds.
_SILENCE_TIMEOUT_S = 30.0
_RECONNECTS = 5
# To a server that was there before: `artmancer serve` takes a minute to start again.
_RESTART_RECONNECTS = 120
_RECONNECT_PAUSE_S = 1.0
_UNAVAILABLE = 503


class ApiError(Exception):
    """The frontend refused a request, failed, or cannot be reached."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        """HTTP status code; None if there was no answer."""


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
        url: its address, `http://host:port`.
        key: the API key to send; empty: none.

    Raises:
        ApiError: this is no address, or no key.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url
        self._was_there = False
        if not (key.isascii() and key.isprintable()):
            raise ApiError("the API key has characters that no key has")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=_SILENCE_TIMEOUT_S)
        except httpx.InvalidURL as error:
            raise ApiError(f"no frontend answers at {url}: {error}") from error

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

        After a lost connection, connect again and continue with the next event. A server that
        starts again is waited for, for two minutes.

        Raises:
            ApiError: no such job, or the connection was lost for good.
        """
        last_id, failures = "", 0
        while True:
            try:
                for event in self._events(task_id, last_id):
                    # Empty for an event that is not in the log and comes first on its connection.
                    last_id, failures = event.id or last_id, 0
                    update = _update(event.json())
                    yield update
                    if update.status.terminal:
                        return
                problem, most = "the stream ended before the job did", _RECONNECTS
            except httpx.TransportError as error:
                problem, most = str(error) or type(error).__name__, _RECONNECTS
                if last_id and isinstance(error, httpx.ConnectError):
                    most = _RESTART_RECONNECTS
            except ApiError as error:
                if not last_id or error.status != _UNAVAILABLE:
                    raise
                problem, most = str(error), _RESTART_RECONNECTS
            failures += 1
            if failures > most:
                raise ApiError(f"lost the event stream of task {task_id}: {problem}")
            time.sleep(_RECONNECT_PAUSE_S)

    def cancel(self, task_id: str) -> None:
        """Cancel a job; a finished one stays as it is.

        Raises:
            ApiError: no such job.
        """
        self._call("POST", f"/api/generate/async/cancel/{task_id}")

    def result(self, task_id: str, *, debug: bool = False) -> dict[str, Any]:
        """Return the result of a job that is done: `image` (PNG, base64) and more.

        Args:
            task_id: the job.
            debug: whether to fetch `debug_info` too, whose pictures are most of the bytes.

        Raises:
            ApiError: the job is not done.
        """
        params = {"debug": str(debug).lower()}
        return self._ask("GET", f"/api/generate/result/{task_id}", params=params)

    def status(self, task_id: str) -> dict[str, Any]:
        """Return the fields of a job's TaskStatus.

        Raises:
            ApiError: no such job.
        """
        return self._ask("GET", f"/api/generate/status/{task_id}")

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
        self._call("POST", f"/api/smart-mask/cancel/{request_id}")

    def _events(self, task_id: str, last_id: str) -> Iterator[httpx_sse.ServerSentEvent]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        path = f"/api/generate/stream/{task_id}"
        with httpx_sse.connect_sse(self._http, "GET", path, headers=headers) as source:
            if source.response.is_error:
                source.response.read()
                raise _api_error(source.response)
            if not source.response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise self._stranger(path)
            for event in source.iter_sse():
                if event.data:  # the event's number comes in a block without data
                    yield event

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Do as `_call`; ask a server again that was there and is away, as `follow` does."""
        failures = 0
        while True:
            try:
                return self._read(path, self._http.request(method, path, **options))
            except httpx.TransportError as error:
                away = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                self._was_there |= not away
                failures += 1
                most = _RESTART_RECONNECTS if away else _RECONNECTS
                if not self._was_there or failures > most:
                    raise self._nobody(error) from error
            time.sleep(_RECONNECT_PAUSE_S)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            return self._read(path, self._http.request(method, path, **options))
        except httpx.TransportError as error:
            raise self._nobody(error) from error

    def _read(self, path: str, response: httpx.Response) -> dict[str, Any]:
        self._was_there = True
        if response.is_error:
            raise _api_error(response)
        try:
            answer: dict[str, Any] = response.json()
        except json.JSONDecodeError as error:
            raise self._stranger(path) from error
        return answer

    def _nobody(self, error: httpx.TransportError) -> ApiError:
        unheard = isinstance(error, httpx.ConnectError) and not self._was_there
        hint = "; `artmancer serve` starts one" if unheard else ""
        return ApiError(f"no frontend answers at {self._url}: {error}{hint}")

    def _stranger(self, path: str) -> ApiError:
        return ApiError(f"what answers at {self._url} is no ArtMancer: {path}")


def _api_error(response: httpx.Response) -> ApiError:
    try:
        detail = str(response.json()["detail"])
    except (json.JSONDecodeError, KeyError, TypeError):
        detail = response.text[:300] or response.reason_phrase
    return ApiError(detail, response.status_code)


def _update(event: Mapping[str, Any]) -> JobUpdate:
    return JobUpdate(
        status=JobStatus(event["status"]),
        progress=event["progress"],
        current_step=event["current_step"],
        total_steps=event["total_steps"],
        error=event["error"],
        message=event.get("loading_message"),
    )
