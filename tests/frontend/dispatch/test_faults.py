from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from frontend.dispatch import dispatcher, patience
from frontend.domain.edits import EditParams
from frontend.errors import StoreAwayError, UnavailableError
from frontend.http import app as app_module
from frontend.http.app import create_app
from frontend.jobs import places, sweeper
from frontend.jobs.sql_store import SqlStore
from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.watch import TritonWatch
from tests.fakes.owners import owner
from tests.fakes.pictures import png
from tests.fakes.triton_server import DEAD, FULL, UNLOADED, task_of
from tests.fakes.web_client import WebClient, check_stream, edit
from tests.fakes.wire import model_config
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from frontend.http.dependencies import Services
    from frontend.jobs.store import Claim, Freed, Held
    from frontend.settings import Settings
    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve


async def wait_ready(client: WebClient, ready: bool = True) -> str:
    """Wait until /readyz says so and return the reason it gives."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.http.get("/readyz")
            if (answer.status_code == 200) == ready:
                return str(answer.json().get("detail", ""))
            await asyncio.sleep(0.02)


async def submit_refused(client: WebClient) -> str:
    """Submit, expect 503, and return the reason."""
    answer = await client.http.post("/api/generate", json=edit())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    return str(answer.json()["detail"])


async def test_without_triton_submissions_are_503_until_it_comes(
    serve: Serve, triton: FakeTriton
) -> None:
    await triton.kill()
    async with serve() as client:
        assert await submit_refused(client) == "Triton is not available"
        assert (await client.http.get("/livez")).status_code == 200
        assert (await client.http.get("/readyz")).headers["retry-after"]
        health = (await client.http.get("/api/system/health")).json()
        assert health["status"] == "degraded"
        assert health["services"]["generation"]["status"] == "unhealthy"
        await triton.start()
        await wait_ready(client)
        await client.finish()


async def test_the_jobs_of_a_killed_triton_run_again_before_the_waiting_ones(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve() as client:
        ids = [await client.submit(edit(num_inference_steps=20)) for _ in range(4)]
        for task_id in ids[:2]:  # the log of one that is lost has to say that it was begun
            await client.wait_status(task_id, "processing")
        subscribers = [asyncio.create_task(client.follow(ids[0])) for _ in range(3)]
        await triton.kill()
        assert await wait_ready(client, ready=False) == "Triton is not available"
        for number, task_id in enumerate(ids, 1):
            async with asyncio.timeout(30):
                while (status := await client.status(task_id))["queue_position"] != number:
                    await asyncio.sleep(0.02)
            assert status["status"] == "queued"
            assert status["loading_message"] == "Waiting for Triton to load the models"
            assert status["restarts"] == (number <= 2)

        await triton.start()
        # Held until both are there: one that ends before would let a waiting one come between.
        await eventually(lambda: len(triton.starts) == 4)
        triton.release()
        for events in await asyncio.gather(*subscribers):
            assert events[-1]["status"] == "done"
            assert events[-1]["restarts"] == 1
        for waiting in ids[2:]:
            events = await client.follow(waiting)
            check_stream(events, 20)
            assert events[-1]["loading_message"] is None
        assert in_pairs(map(task_of, triton.starts)) == in_pairs(ids[:2] + ids)


async def test_leases_are_renewed_once_a_second_from_the_first_one_on(
    serve: Serve, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    renewals: list[float] = []
    clock = asyncio.get_running_loop().time
    take_back, renew = SqlStore.take_back, SqlStore.renew

    async def look(store: SqlStore, name: str, worker: str) -> list[Freed]:
        looks.append(clock())
        return await take_back(store, name, worker)

    async def noted(store: SqlStore, claims: Sequence[Claim], lease_s: float) -> list[Held]:
        renewals.extend([clock()] if claims else [])
        return await renew(store, claims, lease_s)

    monkeypatch.setattr(SqlStore, "take_back", look)
    monkeypatch.setattr(SqlStore, "renew", noted)
    monkeypatch.setattr(dispatcher, "LEASE_S", 60.0)  # it looks for former dispatchers as long
    triton.hold()
    async with serve() as client:
        task_id = await client.submit(edit(num_inference_steps=20))
        await client.wait_status(task_id, "processing")
        since, before = clock(), len(looks)
        await eventually(lambda: len(looks) > before + 10)
        within = [each for each in renewals if each > since]
        assert 1 <= len(within) <= (clock() - since) / dispatcher.RENEWAL_S + 1
        triton.release()
        await client.follow(task_id)


@pytest.mark.parametrize("way", ["end", "give_back"])
async def test_a_job_that_is_about_to_leave_is_not_taken_for_lost(
    serve: Serve, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(dispatcher, "RENEWAL_S", 0.01)
    renewed = asyncio.Event()
    leave, renew = getattr(SqlStore, way), SqlStore.renew

    async def noted(store: SqlStore, claims: Sequence[Claim], lease_s: float) -> list[Held]:
        held = await renew(store, claims, lease_s)
        if claims and not held:
            renewed.set()
        return held

    async def slowly(store: SqlStore, *args: Any) -> Any:
        left = await leave(store, *args)
        await renewed.wait()
        return left

    monkeypatch.setattr(SqlStore, way, slowly)
    monkeypatch.setattr(SqlStore, "renew", noted)
    if way == "give_back":
        triton.behaviour.refuse, triton.behaviour.others = "[UNAVAILABLE] 8 edits are waiting", 8
    async with serve(max_in_flight=1, log_level="warning") as client:
        with capture_logs() as entries:
            task_id = await client.submit(edit(num_inference_steps=4))
            await renewed.wait()
            triton.behaviour.refuse, triton.behaviour.others = "", 0
            check_stream(await client.follow(task_id), 4)
    assert "claim_lost" not in [entry["event"] for entry in entries]
    assert triton.cancels == []
    assert triton.cut_streams == []


async def test_a_job_that_dies_with_two_tritons_ends(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    async with serve() as client:
        task_id = await client.submit(edit(num_inference_steps=20))
        following = asyncio.create_task(client.follow(task_id))
        for restarts in (0, 1):
            async with asyncio.timeout(30):
                while triton.starts != [f"{task_id}.{i + 1}" for i in range(restarts + 1)]:
                    await asyncio.sleep(0.02)
            await client.wait_status(task_id, "processing")
            await triton.kill()
            await wait_ready(client, ready=False)
            await triton.start()
        last = (await following)[-1]
        assert (last["status"], last["restarts"]) == ("error", 1)
        assert last["error"] == "503: Triton is not available"


def in_pairs(ids: Iterable[str]) -> list[list[str]]:
    """Return what Triton was given in turn: of two at once, either may arrive first."""
    listed = list(ids)
    return [sorted(listed[at : at + 2]) for at in range(0, len(listed), 2)]


def ends(entries: Iterable[Any]) -> list[tuple[str, str, str]]:
    """Return each job's end in the log, with its level and the job's error."""
    return [
        (entry["task_id"], entry["log_level"], entry["error"])
        for entry in entries
        if entry["event"] == "job_ended"
    ]


async def keep(client: WebClient, task_id: str, events: list[dict[str, Any]]) -> None:
    """Follow a job to its end, adding each event to `events`."""
    async for event in client.events(task_id):
        events.append(event)


def write_loading_file(file: Path, stage: str) -> None:
    """Tell a stage of a load, as image_edit does."""
    file.write_text(f"{stage}\n")


async def test_a_job_without_retry_ends_with_its_triton(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    async with serve() as client:
        task_id = await client.submit(edit(num_inference_steps=20, retry=False))
        await client.wait_status(task_id, "processing")
        with capture_logs() as entries:
            await triton.kill()
            last = (await client.follow(task_id))[-1]
            await eventually(lambda: ends(entries))
    assert (last["status"], last["error"]) == ("error", "503: Triton is not available")
    assert triton.starts == [f"{task_id}.1"]
    assert ends(entries) == [(task_id, "error", last["error"])]


async def test_waiting_jobs_hear_how_far_the_load_is(
    serve: Serve, triton: FakeTriton, tmp_path: Path
) -> None:
    triton.hold()
    file = tmp_path / "loading"
    async with serve(max_in_flight=1, loading_file=file) as client:
        running = await client.submit(edit(num_inference_steps=1))
        await client.wait_status(running, "processing")
        waiting = await client.submit(edit(num_inference_steps=4))
        events: list[dict[str, Any]] = []
        following = asyncio.create_task(keep(client, waiting, events))
        await triton.kill()
        stages = ["checking the bundle", "loading the pipeline"]
        for stage in stages:
            write_loading_file(file, stage)
            shown = f"Waiting for Triton to load the models: {stage}"
            async with asyncio.timeout(30):
                while shown not in [event["loading_message"] for event in events]:
                    await asyncio.sleep(0.02)
            assert (await client.status(waiting))["loading_message"] == shown
        refused = await submit_refused(client)
        assert refused == "Triton is loading the models: loading the pipeline"
        assert (await client.http.get("/readyz")).json()["detail"] == refused
        # Nobody announces a stage again, even one that another Triton has announced.
        write_loading_file(file, stages[0])
        told_again = refused.replace(stages[1], stages[0])
        async with asyncio.timeout(30):
            while (await client.http.get("/readyz")).json()["detail"] != told_again:
                await asyncio.sleep(0.02)
        triton.release()
        write_loading_file(file, "")
        await triton.start()
        await following
    check_stream(events, 4)
    announced = [
        event["loading_message"] for event in events if ": " in (event["loading_message"] or "")
    ]
    # An event that tells another place has the same words.
    changes = [words for words, _ in itertools.groupby(announced)]
    assert changes == [f"Waiting for Triton to load the models: {stage}" for stage in stages]


async def test_a_job_whose_model_process_dies_twice_ends(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.hang_at = 1
    task_id = await client.submit()
    reason = "Triton could not run the model: Stub process 'image_edit_0_0' is not healthy."
    for _ in range(2):
        await client.wait_status(task_id, "processing")
        triton.behaviour.ping_error = DEAD
        assert await wait_ready(client, ready=False) == reason
        await client.wait_status(task_id, "queued", "error")
        triton.behaviour.ping_error = ""
    last = (await client.follow(task_id))[-1]
    assert (last["error"], last["restarts"]) == (f"503: {reason}", 1)
    triton.behaviour.hang_at = None
    await wait_ready(client)
    await client.finish()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (UNLOADED, UNLOADED),
        (FULL, "/dev/shm, is full"),
    ],
)
async def test_a_triton_that_refuses_pings_may_finish_what_it_has(
    client: WebClient, triton: FakeTriton, refusal: str, reason: str
) -> None:
    triton.hold()
    task_id = await client.submit(edit(num_inference_steps=8))
    await client.wait_status(task_id, "processing")
    triton.behaviour.ping_error = refusal
    assert reason in await wait_ready(client, ready=False)
    triton.release()
    check_stream(await client.follow(task_id), 8)
    assert triton.cut_streams == []
    triton.behaviour.ping_error = ""
    await wait_ready(client)


async def test_a_job_that_a_leaving_triton_refuses_waits_for_the_next(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.leaves = True
    task_id = await client.submit(edit(num_inference_steps=3))
    await wait_ready(client, ready=False)
    assert (await client.status(task_id))["status"] == "queued"
    triton.behaviour.leaves = False
    triton.behaviour.refuse = triton.behaviour.ping_error = ""
    check_stream(await client.follow(task_id), 3)


async def test_only_the_second_missing_answer_counts(
    serve: Serve, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    ping = TritonWatch.ping

    async def soon_missed(watch: TritonWatch[Any]) -> None:
        # Only one that gets no answer: a busy machine may be late with the others.
        with pytest.MonkeyPatch.context() as patch:
            if triton.behaviour.missed_pings and watch._table is IMAGE_EDIT:
                patch.setattr(watch, "_timeout_s", 0.5)
            await ping(watch)

    monkeypatch.setattr(TritonWatch, "ping", soon_missed)
    triton.hold()
    async with serve(cancel_timeout_s=0.05) as client:
        task_id = await client.submit(edit(num_inference_steps=3))
        await client.wait_status(task_id, "processing")
        triton.behaviour.missed_pings = 1
        await eventually(lambda: not triton.behaviour.missed_pings)
        pings = triton.pings
        while triton.pings < pings + 2:  # the second shows that the first was answered
            assert (await client.http.get("/readyz")).status_code == 200
        assert (await client.status(task_id))["status"] == "processing"
        triton.behaviour.missed_pings = 1000
        assert await wait_ready(client, ready=False) == "Triton does not answer"
        triton.behaviour.missed_pings = 0
        await wait_ready(client)
        # Silence is no proof that the edit is lost.
        triton.release()
        check_stream(await client.follow(task_id), 3)
        assert triton.cut_streams == []


async def test_a_model_that_answers_an_edit_lives_whatever_its_pings_say(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.2
    # In which an answer is written to a slow disk, too: the next one is read only then.
    async with serve(ping_timeout_s=2) as client:
        task_id = await client.submit(edit(num_inference_steps=100))
        await client.wait_status(task_id, "processing")
        pings = triton.pings
        triton.behaviour.missed_pings = 1000
        while triton.pings < pings + 4:  # each of three has got no answer
            assert (await client.http.get("/readyz")).status_code == 200
            await asyncio.sleep(0.05)
        triton.behaviour.missed_pings, triton.behaviour.step_s = 0, 0.001
        check_stream(await client.follow(task_id), 100)


async def test_a_loop_that_stands_still_costs_nobody_an_edit(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.1
    patience = {"ping_timeout_s": 0.5, "silence_timeout_s": 2, "cancel_timeout_s": 2}
    async with serve(**patience) as client:
        task_id = await client.submit(edit(num_inference_steps=15))
        cancelled = await client.submit(edit(num_inference_steps=100))
        await client.reached(task_id, 2)
        await client.wait_status(cancelled, "processing")
        cancelling = asyncio.create_task(client.cancel(cancelled))
        await asyncio.sleep(0)
        time.sleep(5)  # noqa: ASYNC251 (that is what happens)
        assert (await client.http.get("/readyz")).status_code == 200
        assert (await cancelling).status_code == 200
        check_stream(await client.follow(task_id), 15)
        assert (await client.follow(cancelled))[-1]["status"] == "cancelled"
        assert triton.cut_streams == []


async def test_silence_fails_the_silent_job_only(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.hang_at = 2
    async with serve(silence_timeout_s=2) as client:
        silent = await client.submit()
        await eventually(triton.hanging.is_set)
        triton.behaviour.hang_at = None
        behind = await client.submit(edit(num_inference_steps=3))
        assert (await client.follow(silent))[-1]["error"] == "500: the model stopped responding"
        check_stream(await client.follow(behind), 3)


async def test_a_slow_unit_of_work_is_no_silence(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.hang_at, triton.behaviour.lively = 2, True
    async with serve(silence_timeout_s=1) as client:
        slow = await client.submit()
        await client.reached(slow, step=2)
        # The ping after these is late enough to have ended a job that is silent.
        pings = triton.pings
        await asyncio.sleep(1.5)
        await eventually(lambda: triton.pings > pings + 2)
        assert (await client.status(slow))["status"] == "processing"
        triton.behaviour.lively = False
        assert (await client.follow(slow))[-1]["error"] == "500: the model stopped responding"


async def test_who_waits_for_an_ended_job_is_told(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.hang_at = 2
    # Cancelled, not silent for too long: then a busy machine would end the held one as well.
    async with serve(cancel_timeout_s=1) as client:
        ended = await client.submit()
        await client.reached(ended, step=2)
        await eventually(triton.hanging.is_set)
        triton.behaviour.clings_to = ended
        behind = [await client.submit(edit(num_inference_steps=3)) for _ in range(4)]
        triton.hold()
        await client.cancel(ended)
        triton.behaviour.hang_at = None
        message = "Waiting for the engine, which still works on an edit that has ended"

        async def waiting() -> list[str]:
            states = [await client.status(each) for each in behind[1:]]
            return [state["loading_message"] for state in states]

        async with asyncio.timeout(60):
            while await waiting() != [message] * 3:
                await asyncio.sleep(0.02)
        health = (await client.http.get("/api/system/health")).json()
        assert health["status"] == "degraded"
        assert health["services"]["generation"]["reason"] == (
            f"an engine still works on {ended}, which has ended"
        )
        triton.behaviour.clings_to = ""
        async with asyncio.timeout(30):
            while message in await waiting():
                await asyncio.sleep(0.02)
        triton.release()
        for each in behind:
            check_stream(await client.follow(each), 3)
        # The next ping says it.
        async with asyncio.timeout(30):
            while (await client.http.get("/api/system/health")).json()["status"] != "healthy":
                await asyncio.sleep(0.02)


async def test_a_job_that_waits_for_a_long_one_is_not_silent(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.4
    async with serve(silence_timeout_s=2) as client:
        long, behind = [await client.submit(edit(num_inference_steps=n)) for n in (6, 1)]
        check_stream(await client.follow(long), 6)
        check_stream(await client.follow(behind), 1)


async def test_a_job_that_waits_for_another_client_s_edit_is_not_silent(
    serve: Serve, triton: FakeTriton
) -> None:
    async with serve(silence_timeout_s=2) as client:
        async with triton.engine:
            task_id = await client.submit(edit(num_inference_steps=3))
            await client.wait_status(task_id, "processing")
            await asyncio.sleep(2.5)
            # Its next edit may be still another client's.
            triton.behaviour.idle_pings = 1
            await eventually(lambda: triton.behaviour.idle_pings == 0)
            pings = triton.pings
            await eventually(lambda: triton.pings > pings + 2)
            assert (await client.status(task_id))["status"] == "processing"
        check_stream(await client.follow(task_id), 3)


async def test_a_job_that_the_full_model_refuses_waits_on(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.refuse, triton.behaviour.others = "[UNAVAILABLE] 8 edits are waiting", 8
    async with serve() as client:
        ids = [await client.submit(edit(num_inference_steps=3)) for _ in range(4)]
        await eventually(lambda: triton.requests)
        async with asyncio.timeout(30):
            states: list[tuple[str, int]] = []
            while states != [("queued", place) for place in (1, 2, 3, 4)]:
                found = [await client.status(task_id) for task_id in ids]
                states = [(each["status"], each["queue_position"]) for each in found]
        await client.cancel(ids[1])
        assert (await client.follow(ids[1]))[-1]["status"] == "cancelled"
        triton.behaviour.refuse, triton.behaviour.others = "", 0
        for task_id in (ids[0], *ids[2:]):
            check_stream(await client.follow(task_id), 3)


@pytest.mark.parametrize(
    "refusal", [FULL, "[UNAVAILABLE] Triton's shared memory, /dev/shm, is full"]
)
async def test_a_job_that_alone_does_not_fit_into_shared_memory_ends(
    client: WebClient, triton: FakeTriton, refusal: str
) -> None:
    triton.behaviour.refuse = refusal
    ids = [await client.submit() for _ in range(3)]
    for task_id in ids:
        last = (await client.follow(task_id))[-1]
        assert last["error"].startswith("503: Triton's shared memory, /dev/shm, is full: ")
        assert "--shm-size" in last["error"]
    triton.behaviour.refuse = ""
    await client.finish()


async def test_a_job_that_does_not_fit_into_shared_memory_beside_another_waits_for_its_end(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.hold()
    triton.behaviour.fits = 1
    first = await client.submit(edit(num_inference_steps=3))
    await client.wait_status(first, "processing")
    others = [await client.submit(edit(num_inference_steps=3)) for _ in range(2)]
    await eventually(lambda: len(triton.starts) == 2)
    pings = triton.pings
    await eventually(lambda: triton.pings > pings + 3)
    assert triton.starts == [f"{first}.1", f"{others[0]}.1"]
    assert (await client.status(others[0]))["status"] == "queued"
    triton.release()
    for task_id in (first, *others):
        check_stream(await client.follow(task_id), 3)


async def test_a_job_that_every_start_loses_fails(client: WebClient, triton: FakeTriton) -> None:
    triton.behaviour.refuse = "Stub process 'image_edit_0_0' is not healthy."
    last = (await client.follow(await client.submit()))[-1]
    assert last["error"] == f"503: Triton could not run the model: {triton.behaviour.refuse}"
    triton.behaviour.refuse = ""
    await wait_ready(client)
    await client.finish()


async def test_a_refused_job_names_the_request_s_field(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.refuse = "[INVALID_ARGUMENT] IMAGE: more elongated than REFERENCE_MASK_R"
    last = (await client.follow(await client.submit()))[-1]
    assert last["error"] == "400: input_image: more elongated than reference_mask_R"


async def test_a_stream_that_ends_without_a_result_is_an_error(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.behaviour.end_at = 2
    last = (await client.follow(await client.submit()))[-1]
    assert last["error"] == "500: the model ended the job without a result"


async def test_a_stream_that_breaks_is_an_error(client: WebClient, triton: FakeTriton) -> None:
    triton.behaviour.abort_at = 2
    last = (await client.follow(await client.submit()))[-1]
    assert last["error"] == "500: Triton failed with INTERNAL"


async def test_a_job_has_a_deadline(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    async with serve(job_timeout_s=5) as client:
        last = (await client.follow(await client.submit()))[-1]
        assert last["error"] == "500: the model did not finish in time"
    triton.release()
    async with serve() as client:
        await client.finish()


async def test_the_time_behind_another_job_does_not_count_to_the_deadline(
    serve: Serve, triton: FakeTriton
) -> None:
    # Each job takes 6 s of its 10, so that a machine may stand still for 4.
    triton.behaviour.step_s = 1
    async with serve(job_timeout_s=10) as client:
        ids = [await client.submit(edit(num_inference_steps=6)) for _ in range(2)]
        for task_id in ids:
            check_stream(await client.follow(task_id), 6)
    assert triton.most_at_once == 2


async def test_a_result_that_does_not_fit_fails_the_job(serve: Serve, triton: FakeTriton) -> None:
    async with serve(store_bytes=100_000, owner_fraction=1) as client:
        triton.behaviour.info = {"debug_info": "x" * 100_000}
        last = (await client.follow(await client.submit()))[-1]
        assert last["error"].startswith("503: ")
        triton.behaviour.info = {}
        await client.finish()


async def test_a_cancel_that_is_not_answered_cuts_the_stream(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.hang_at = 1
    async with serve(cancel_timeout_s=0.3) as client:
        task_id = await client.submit()
        await client.reached(task_id, step=1)
        triton.behaviour.deaf = True
        await client.cancel(task_id)
        assert (await client.follow(task_id))[-1]["status"] == "cancelled"
        triton.behaviour.deaf, triton.behaviour.hang_at = False, None
        await client.finish()
    assert triton.cut_streams == [task_id]


async def test_a_cancel_that_is_not_obeyed_cuts_the_stream(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.hang_at = 1
    async with serve(cancel_grace_s=0.3) as client:
        task_id = await client.submit()
        await client.reached(task_id, step=1)
        await client.cancel(task_id)
        assert (await client.follow(task_id))[-1]["status"] == "cancelled"
        assert triton.in_band_cancels == [task_id]
        triton.behaviour.hang_at = None
        await client.finish()
    assert triton.cut_streams == [task_id]


async def test_a_job_whose_pictures_are_slow_to_read_can_be_cancelled(
    serve: Serve, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, slow, read = asyncio.Event(), asyncio.Event(), SqlStore.params

    async def params(store: SqlStore, job_id: str) -> EditParams:
        if not reading.is_set():
            reading.set()
            await slow.wait()
        return await read(store, job_id)

    monkeypatch.setattr(SqlStore, "params", params)
    async with serve(max_in_flight=1) as client:
        task_id = await client.submit()
        await reading.wait()
        try:
            await client.cancel(task_id)
            async with asyncio.timeout(30):
                assert (await client.follow(task_id))[-1]["status"] == "cancelled"
        finally:
            slow.set()
        await client.finish()
    assert task_id not in triton.requests


async def test_another_model_is_not_ready_and_says_why(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.config = other = model_config()
    [number] = [each.data_type for each in other.input if each.name == "WIDTH"]
    other.input[0].data_type = other.input[-1].data_type = number
    async with serve() as client:
        reason = await wait_ready(client, ready=False)
        assert "input PROMPT TYPE_STRING [1] is TYPE_INT32 [1]" in reason
        assert await submit_refused(client) == reason
        triton.behaviour.config = model_config()
        await wait_ready(client)


async def test_waiting_jobs_do_not_outlast_a_triton_that_stays_away(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.hold()
    async with serve(max_in_flight=1, recovery_timeout_s=3) as client:
        running, waiting = [await client.submit() for _ in range(2)]
        await client.wait_status(running, "processing")
        events: list[dict[str, Any]] = []
        following = asyncio.create_task(keep(client, waiting, events))
        await eventually(lambda: events)
        with capture_logs() as entries:
            await triton.kill()
            await following
            await eventually(lambda: len(ends(entries)) == 2)
    assert ends(entries) == [
        (task_id, "error", "503: Triton is not available") for task_id in (running, waiting)
    ]
    assert events[-1]["error"] == "503: Triton is not available"
    assert events[0]["loading_message"] is None
    assert events[-2]["loading_message"] == "Waiting for Triton to load the models"
    assert (events[-2]["status"], events[-2]["stage"]) == ("queued", None)


async def test_waiting_jobs_do_not_outlast_an_adapter_that_stays_away(
    settings: Settings, triton: FakeTriton
) -> None:
    triton.hold()
    app = create_app(settings.model_copy(update={"max_in_flight": 1, "recovery_timeout_s": 3}))
    async with listening(app) as url, WebClient(url) as client:
        running = await client.submit()
        await client.wait_status(running, "processing")
        kinds = ("insertion", "removal")
        lacking, waiting = [await client.submit(edit(task_type=kind)) for kind in kinds]
        triton.behaviour.adapters = ("removal",)
        last = (await client.follow(lacking))[-1]
        assert last["error"] == "501: task_type: the adapter for insertion is not installed"
        assert (await client.status(waiting))["status"] == "queued"
        triton.release()
        for task_id in (running, waiting):
            assert (await client.follow(task_id))[-1]["status"] == "done"


async def test_stopping_the_frontend_stops_its_jobs(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    with contextlib.ExitStack() as logs:
        async with serve(log_level="info") as client:
            entries = logs.enter_context(capture_logs())
            ids = [await client.submit(edit(num_inference_steps=100)) for _ in range(3)]
            await client.wait_status(ids[1], "processing")
    returned = [entry["reason"] for entry in entries if entry["event"] == "job_returned"]
    assert returned == ["The server is shutting down"] * 2  # nobody has cancelled them
    assert sorted(triton.in_band_cancels) == sorted(ids[:2])
    assert triton.live == 0
    assert triton.cut_streams == []


async def test_a_stopped_frontend_takes_no_more_and_the_next_one_goes_on(
    settings: Settings, triton: FakeTriton
) -> None:
    triton.hold()
    params = EditParams(
        prompt="", image=png((8, 8)), task_type="removal", num_inference_steps=9, seed=1
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        services: Services = app.state.services
        submitted = [await services.edits.submit(owner(), params, b"", None) for _ in range(3)]
        ids = [each.job_id for each in submitted]
        for task_id in ids[:2]:
            while (await services.jobs.last(task_id))[1].status != "processing":
                await asyncio.sleep(0.01)
    with pytest.raises(UnavailableError, match="shutting down"):
        await services.edits.submit(owner(), params, b"", None)
    async with listening(create_app(settings)) as url, WebClient(url) as client:
        await eventually(lambda: len(triton.starts) == 4)  # both, before one ends
        triton.release()
        for task_id, restarts in zip(ids, (1, 1, 0), strict=True):
            last = (await client.follow(task_id))[-1]
            assert (last["status"], last["restarts"]) == ("done", restarts)
    assert triton.cut_streams == []
    assert in_pairs(map(task_of, triton.starts)) == in_pairs(ids[:2] + ids)


async def test_a_stream_goes_on_at_the_next_frontend(
    settings: Settings, triton: FakeTriton
) -> None:
    triton.hold()
    async with listening(create_app(settings)) as url, WebClient(url) as client:
        task_id = await client.submit(edit(num_inference_steps=9))
        before = []
        async with contextlib.aclosing(client.events(task_id)) as events:
            async for event in events:
                before.append(event)
                if event["status"] == "processing":
                    break
    triton.release()
    async with listening(create_app(settings)) as url, WebClient(url) as client:
        after = await client.follow(task_id, last_event_id=before[-1]["seq"])
        seqs = [event["seq"] for event in before + after if "seq" in event]
        assert seqs == list(range(1, len(seqs) + 1))
        assert after[-1]["status"] == "done"
        for event, later in itertools.pairwise(before + after):
            assert event["progress"] <= later["progress"]
            assert event["current_step"] <= later["current_step"]


async def test_jobs_outlast_a_store_that_is_away_for_longer_than_their_leases(
    settings: Settings, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than some writes to a slow disk, behind which the renewal of a lease may wait.
    monkeypatch.setattr(dispatcher, "LEASE_S", lease_s := 4.0)
    monkeypatch.setattr(app_module, "LEASE_S", lease_s)
    monkeypatch.setattr(dispatcher, "RENEWAL_S", 0.05)
    monkeypatch.setattr(sweeper, "ROUND_S", 0.05)
    # Who waits for the store hears nothing of Triton, which is not silent for that.
    triton.behaviour.lively = True
    app = create_app(settings.model_copy(update={"silence_timeout_s": lease_s / 2}))
    async with listening(app) as url, WebClient(url) as client:
        driver = app.state.services.jobs._driver
        triton.hold()
        retried, not_retried = [
            await client.submit(edit(num_inference_steps=9, retry=retry)) for retry in (True, False)
        ]
        for task_id in (retried, not_retried):
            await client.wait_status(task_id, "processing")

        def full(*_: object) -> None:
            raise StoreAwayError("The job store does not answer: database or disk is full")

        following = [
            asyncio.create_task(client.follow(task_id)) for task_id in (retried, not_retried)
        ]
        with monkeypatch.context() as away:
            away.setattr(driver, "write", full)
            away.setattr(driver, "write_part", full)
            triton.release()  # one edit and then the other one ends meanwhile
            await asyncio.sleep(2 * lease_s)
        for events in await asyncio.gather(*following):
            check_stream(events, 9)
            assert events[-1]["restarts"] == 0
    assert sorted(triton.starts) == sorted(f"{task_id}.1" for task_id in (retried, not_retried))
    assert triton.cancels == []


async def test_a_stop_waits_for_a_store_that_is_away_only_a_moment(
    serve: Serve, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STOP_PATIENCE_S", 0.1)
    # What waits for an edit to end, instead of for the store, waits for longer than the test may.
    async with serve(cancel_timeout_s=3600, cancel_grace_s=3600) as client:
        task_ids = [await client.submit(edit(num_inference_steps=20)) for _ in range(2)]
        for task_id in task_ids:
            await client.wait_status(task_id, "processing")

        async def away(*_: object) -> None:
            raise StoreAwayError("The job store does not answer: database is locked")

        for call in ("append", "end", "give_back", "renew", "announce", "depart"):
            monkeypatch.setattr(SqlStore, call, away)
    assert sorted(map(task_of, triton.starts)) == sorted(task_ids)


async def test_a_stop_waits_for_the_store_longer_than_for_a_model(
    settings: Settings, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STOP_PATIENCE_S", 3600)
    monkeypatch.setattr(patience, "RETRY_S", 0.01)
    settings = settings.model_copy(update={"cancel_timeout_s": 0.05})
    give_back, asked = SqlStore.give_back, itertools.count()

    async def away_at_first(store: SqlStore, claim: Claim, lost: str | None = None) -> Freed | None:
        if next(asked) < 100:  # it takes a second, many times as long as the model has
            raise StoreAwayError("The job store does not answer: database is locked")
        return await give_back(store, claim, lost)

    triton.hold()
    async with listening(create_app(settings), settings) as url, WebClient(url) as client:
        task_id = await client.submit()
        await client.wait_status(task_id, "processing")
        monkeypatch.setattr(SqlStore, "give_back", away_at_first)
    store = await places.open_store(settings)
    assert [job.job_id for job in (await store.view()).waiting] == [task_id]
    await store.close()


async def test_many_jobs_cancelled_at_random_all_end_once(serve: Serve, triton: FakeTriton) -> None:
    triton.behaviour.step_s = 0.002
    triton.hold()  # no job is done before the first cancel is answered

    async def one(client: WebClient, number: int) -> list[dict[str, Any]]:
        task_id = await client.submit(edit(num_inference_steps=5))
        if number % 2:
            await asyncio.sleep(number % 13 / 200)
            await client.cancel(task_id)
            triton.release()
        return await client.follow(task_id)

    async with serve() as client:
        logs = await asyncio.gather(*(one(client, number) for number in range(40)))
        await client.finish()
    for events in logs:
        terminal = [e["status"] for e in events if e["status"] not in ("queued", "processing")]
        assert terminal in (["done"], ["cancelled"])
        assert events[-1]["status"] == terminal[0]
    assert {events[-1]["status"] for events in logs} == {"done", "cancelled"}
    assert triton.cut_streams == []
