from __future__ import annotations

import httpx
import pytest

from frontend import client as client_module
from frontend.client import ApiError, Client, Submitted
from frontend.domain.jobs import JobStatus
from frontend.launcher import ports
from tests.frontend.scripted_server import DROP, TASK, Note, Script, event, serving

WHOLE_JOB = [
    event("queued"),
    event("processing"),
    event("processing", 1),
    event("processing", 2),
    event("done", 2),
]
STATES = [("queued", 0), ("processing", 0), ("processing", 1), ("processing", 2), ("done", 2)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_RECONNECT_PAUSE_S", 0.01)


def nobody() -> str:
    """Return an address at which nobody listens, nor begins to."""
    [port] = ports.free(1)
    return f"http://127.0.0.1:{port}"


def follow(script: Script) -> list[tuple[str, int]]:
    with serving(script) as url, Client(url) as client:
        return [(update.status, update.current_step) for update in client.follow(TASK)]


def test_a_job_is_followed_to_its_end() -> None:
    assert follow(Script(WHOLE_JOB)) == STATES


def test_an_update_has_what_a_progress_bar_shows() -> None:
    with serving(Script(WHOLE_JOB)) as url, Client(url) as client:
        first, *_, last = client.follow(TASK)
    assert (first.status, first.progress, first.message) == (JobStatus.QUEUED, 0.0, "Preparing")
    assert (last.status, last.progress, last.total_steps) == (JobStatus.DONE, 1.0, 2)
    assert last.error is None


@pytest.mark.parametrize("dropped_at", range(len(WHOLE_JOB)))
def test_a_dropped_stream_is_taken_up_where_it_broke_off(dropped_at: int) -> None:
    script = Script([*WHOLE_JOB[:dropped_at], DROP, *WHOLE_JOB[dropped_at:]])
    assert follow(script) == STATES
    assert script.last_event_ids == [None, str(dropped_at - 1) if dropped_at else None]


def test_an_event_without_a_number_repeats_nothing() -> None:
    waits = Note(event("queued"))
    script = Script([*WHOLE_JOB[:2], DROP, waits, DROP, *WHOLE_JOB[2:]])
    assert follow(script) == [*STATES[:2], ("queued", 0), ("queued", 0), *STATES[2:]]
    assert script.last_event_ids == [None, "1", "1"]


def test_drops_without_progress_are_given_up() -> None:
    script = Script([event("queued"), *[DROP] * 20])
    with pytest.raises(ApiError, match="lost the event stream of task task-1"):
        follow(script)
    assert len(script.last_event_ids) == 6


class Closed(httpx.HTTPTransport):
    """Refuses some connections, as a port does at which nobody listens."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "Last-Event-ID" in request.headers and self.times:
            self.times -= 1
            raise httpx.ConnectError("refused")
        return super().handle_request(request)


def test_a_server_that_starts_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Closed(times=60)
    script = Script([*WHOLE_JOB[:2], DROP, *WHOLE_JOB[2:]])
    with serving(script) as url, Client(url) as client:
        monkeypatch.setattr(client, "_http", httpx.Client(base_url=url, transport=closed))
        found = [(update.status, update.current_step) for update in client.follow(TASK)]
        client._http.close()
    assert found == STATES
    assert closed.times == 0


@pytest.mark.parametrize("status", [502, 503, 504])
def test_so_is_one_that_is_stopping_or_whose_proxy_answers(status: int) -> None:
    assert follow(Script([*WHOLE_JOB[:2], *[status] * 20, DROP, *WHOLE_JOB[2:]])) == STATES
    script = Script(WHOLE_JOB, refused_fetches=[status] * 20)
    with serving(script) as url, Client(url) as client:
        client.submit({})
        assert client.result(TASK)["image"]
        assert script.refused_fetches == []


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_RESTART_S", 0.05)
    script = Script([event("queued"), *[502] * 1000], refused_fetches=[504] * 1000)
    with serving(script) as url, Client(url) as client:
        with pytest.raises(ApiError, match=r"lost the event stream of task task-1: <html> <p>Bad$"):
            list(client.follow(TASK))
        with pytest.raises(ApiError, match=r"^<html> <p>Bad$"):
            client.result(TASK)
    assert 2 < len(script.last_event_ids) < 1000


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_before_nobody_is_believed_at_once(status: int) -> None:
    script = Script([status] * 2, refused_fetches=[status] * 2)
    with serving(script) as url, Client(url) as client:
        for ask in (lambda: list(client.follow(TASK)), lambda: client.result(TASK)):
            with pytest.raises(ApiError) as caught:
                ask()
            assert caught.value.status == status
    assert len(script.last_event_ids) == len(script.refused_fetches) == 1


def test_a_submission_to_a_full_server_is_refused_at_once() -> None:
    script = Script(refusal=(503, b'{"detail": "The queue is full"}'))
    with serving(script) as url, Client(url) as client:
        with pytest.raises(ApiError, match="not found"):
            client.result("nobody")
        with pytest.raises(ApiError, match="The queue is full"):
            client.submit({})
    assert len(script.authorizations) == 2


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    url = nobody()
    with Client(url) as client, pytest.raises(ApiError, match=f"no frontend answers at {url}"):
        list(client.follow(TASK))


def test_drops_with_progress_between_them_are_not_given_up() -> None:
    steps = [entry for event in WHOLE_JOB for entry in (DROP, DROP, DROP, event)]
    assert follow(Script(steps)) == STATES


def test_a_request_goes_out_as_it_is() -> None:
    script = Script()
    with serving(script) as url, Client(url) as client:
        assert client.submit({"prompt": "x", "seed": 1}) == Submitted(TASK, [])
    assert script.submitted == {"prompt": "x", "seed": 1}


def test_a_lost_answer_is_asked_for_again_by_one_key() -> None:
    script = Script(WHOLE_JOB, lost_answers=3)
    with serving(script) as url, Client(url) as client:
        assert client.submit({}).task_id == TASK
    assert len(script.keys) == 4
    assert len(set(script.keys)) == 1
    assert script.keys[0]


def test_each_edit_has_a_key_of_its_own() -> None:
    script = Script(WHOLE_JOB)
    with serving(script) as url, Client(url) as client:
        for _ in range(2):
            client.submit({})
    assert len(set(script.keys)) == 2


def test_a_lost_result_is_fetched_again() -> None:
    script = Script(WHOLE_JOB, lost_answers=2)
    with serving(script) as url, Client(url) as client:
        assert client.result(TASK)["image"]


def test_answers_that_are_always_lost_are_given_up() -> None:
    script = Script(WHOLE_JOB, lost_answers=1000)
    with serving(script) as url, Client(url) as client:
        for ask in (lambda: client.submit({}), lambda: client.result(TASK)):
            with pytest.raises(ApiError, match="no frontend answers"):
                ask()
    assert len(script.keys) == 6


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ((400, b'{"detail": "seed: too small"}'), "seed: too small"),
        ((503, b'{"detail": "The queue is full"}'), "The queue is full"),
        ((502, b"<html>no JSON"), "<html>no JSON"),
        ((500, b"[]"), "[]"),
        ((500, b"caf\xe9"), "caf\ufffd"),
        ((500, b""), "Internal Server Error"),
    ],
)
def test_a_refusal_carries_the_servers_words(answer: tuple[int, bytes], detail: str) -> None:
    with (
        serving(Script(refusal=answer)) as url,
        Client(url) as client,
        pytest.raises(ApiError) as caught,
    ):
        client.submit({})
    assert str(caught.value) == detail
    assert caught.value.status == answer[0]


def test_an_unknown_job_is_refused_not_retried() -> None:
    with serving(Script()) as url, Client(url) as client:
        with pytest.raises(ApiError, match="Task nobody not found") as caught:
            list(client.follow("nobody"))
        assert caught.value.status == 404
        with pytest.raises(ApiError, match="not found"):
            client.result("nobody")


def test_nobody_listens() -> None:
    url = nobody()
    with Client(url) as client, pytest.raises(ApiError, match=f"no frontend answers at {url}"):
        client.submit({})


def test_a_mask_and_its_cancel() -> None:
    script = Script()
    with serving(script) as url, Client(url) as client:
        assert client.mask({"points": [[1, 2]]})["image_id"] == "id"
        client.cancel_mask("click")
    assert script.masks == [{"points": [[1, 2]]}]
    assert script.cancel_path == "/api/smart-mask/cancel/click"


def test_cancel_and_result() -> None:
    script = Script()
    with serving(script) as url, Client(url) as client:
        client.cancel(TASK)
        assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"
        assert client.result(TASK)["generation_time"] == 1.25


@pytest.mark.parametrize(
    ("task_id", "segment"),
    [
        ("a\nb", "a%0Ab"),
        ("a\r", "a%0D"),
        ("..", "%2E%2E"),
        ("a/b?c#d%41", "a%2Fb%3Fc%23d%2541"),
        ("caf\udce9", "caf%3F"),
    ],
)
def test_an_id_is_one_segment_of_a_path_whatever_it_holds(task_id: str, segment: str) -> None:
    script = Script()
    with serving(script) as url, Client(url) as client:
        for ask in (client.status, client.result, lambda task: list(client.follow(task))):
            with pytest.raises(ApiError, match="not found") as caught:
                ask(task_id)
            assert str(caught.value).replace("?debug=false", "") == f"Task {segment} not found"
        client.cancel(task_id)
        assert script.cancel_path == f"/api/generate/async/cancel/{segment}"
        client.cancel_mask(task_id)
        assert script.cancel_path == f"/api/smart-mask/cancel/{segment}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "caf\udce9"])
def test_what_json_cannot_hold_is_bad_input(value: object) -> None:
    script = Script()
    with serving(script) as url, Client(url) as client:
        for ask in (client.submit, client.mask):
            with pytest.raises(ApiError, match="cannot be sent") as caught:
                ask({"prompt": value})
            assert caught.value.status == 400
    assert script.authorizations == []


def test_an_id_of_endless_length_is_bad_input() -> None:
    with Client(nobody()) as client:
        for ask in (client.status, client.cancel, lambda task: list(client.follow(task))):
            with pytest.raises(ApiError, match="URL too long") as caught:
                ask("x" * 70_000)
            assert caught.value.status == 400


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTP_PROXY", "ftp://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:x"),
        ("SSL_CERT_FILE", "/absent"),
    ],
)
def test_an_environment_that_forbids_http_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ApiError, match="HTTP cannot be set up") as caught:
        Client("http://an.example")
    assert caught.value.status == 400
    if variable.endswith("PROXY"):
        Client("http://127.0.0.1:1")  # asks no proxy
