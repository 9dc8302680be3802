"""image_edit and edit_conditions as a direct Triton client sees them, without the frontend."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from tests.fakes.web_client import decode, scene, square_mask

from .direct_client import LONG, Tensors, collect, removal, stream, tensors


async def test_a_stream_is_a_response_per_stage_and_step_and_one_final_flag(triton: Any) -> None:
    responses = await collect(triton, removal())
    assert all(response.error is None for response in responses)
    stages = [response.values["STAGE"].decode() for response in responses]
    assert stages == [
        "loading", "conditioning", "encoding", "denoising", "denoising", "denoising",
        "decoding", "done",
    ]  # fmt: skip
    assert [response.final for response in responses] == [False] * 7 + [True]
    assert [int(response.values["STEP"]) for response in responses] == [0, 0, 0, 1, 2, 3, 3, 3]
    assert {int(response.values["TOTAL_STEPS"]) for response in responses} == {3}
    progress = [float(response.values["PROGRESS"]) for response in responses]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert decode(responses[-1].values["IMAGE"]).shape == (64, 64, 3)
    info = json.loads(responses[-1].values["INFO"])
    assert {"debug_info", "parameters_used", "model_used", "generation_time"} <= info.keys()


REFUSED: dict[str, tuple[Tensors, str]] = {
    "no prompt": ({"PROMPT": None, "TASK_TYPE": "insertion"}, "[INVALID_ARGUMENT]"),
    "no image": ({"IMAGE": None}, "[INVALID_ARGUMENT]"),
    "image is text": ({"IMAGE": "not a picture"}, "[INVALID_ARGUMENT]"),
    "truncated image": ({"IMAGE": scene(256)[:2000]}, "[INVALID_ARGUMENT]"),
    "no mask": ({"CONDITIONAL_IMAGE_0": None}, "[INVALID_ARGUMENT]"),
    "bad mask": ({"CONDITIONAL_IMAGE_0": b"\x00\x01"}, "[INVALID_ARGUMENT]"),
    "a gap": ({"CONDITIONAL_IMAGE_2": scene()}, "[INVALID_ARGUMENT] CONDITIONAL_IMAGE_2: needs"),
    "unknown task": ({"TASK_TYPE": "teleportation"}, "[INVALID_ARGUMENT]"),
    "unknown quality": ({"INPUT_QUALITY": "best"}, "[INVALID_ARGUMENT]"),
    "zero steps": ({"NUM_INFERENCE_STEPS": np.array([0], np.int32)}, "[INVALID_ARGUMENT]"),
    "too many steps": ({"NUM_INFERENCE_STEPS": np.array([101], np.int32)}, "[INVALID_ARGUMENT]"),
    "narrow": ({"WIDTH": np.array([255], np.int32)}, "[INVALID_ARGUMENT]"),
    "tall": ({"HEIGHT": np.array([2049], np.int32)}, "[INVALID_ARGUMENT]"),
    "nan guidance": ({"TRUE_CFG_SCALE": np.array([np.nan], np.float32)}, "[INVALID_ARGUMENT]"),
    "negative seed": ({"SEED": np.array([-1], np.int64)}, "[INVALID_ARGUMENT]"),
    # Triton's own check.
    "unknown input": ({"STEPS": np.array([4], np.int32)}, "unexpected inference input 'STEPS'"),
    "not UTF-8": ({"PROMPT": b"\xff\xfe"}, "[INVALID_ARGUMENT]"),
    # Triton's own, before it copies anything.
    "a list": ({"CONDITIONAL_IMAGE_0": [square_mask()] * 2}, "unexpected shape for input"),
    "empty mask of two sources": (
        {
            "TASK_TYPE": "insertion",
            "CONDITIONAL_IMAGE_0": square_mask(low=0.5, high=0.5),
            "REFERENCE_IMAGE": scene(48),
            "REFERENCE_MASK_R": square_mask(48),
        },
        "[INVALID_ARGUMENT] CONDITIONAL_IMAGE_0: No object found in mask (no white pixels)",
    ),
    "mask of a speck for two sources": (
        {
            "TASK_TYPE": "insertion",
            "CONDITIONAL_IMAGE_0": square_mask(low=0.5, high=0.6),
            "REFERENCE_IMAGE": scene(48),
            "REFERENCE_MASK_R": square_mask(48),
        },
        "No valid mask regions detected in main_mask_A",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_bad_input_is_one_coded_error_and_the_end(triton: Any, name: str) -> None:
    changes, expected = REFUSED[name]
    async with asyncio.timeout(60):
        responses = await collect(triton, removal(**changes))
    errors = [response.error for response in responses if response.error]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in errors[0]
    assert (await collect(triton, removal()))[-1].final


async def test_a_ping_describes_the_model(triton: Any) -> None:
    (answer,) = await collect(triton, {"CANCEL": ""})
    assert answer.final
    info = json.loads(answer.values["INFO"])
    assert info["cancelled"] is False
    assert sorted(info["adapters"]) == ["insertion", "removal", "white-balance"]


async def test_an_in_band_cancel_ends_the_job_with_its_code(triton: Any) -> None:
    errors, cancelled = [], False
    async for response in stream(triton, removal(**LONG), "job-1"):
        if response.error:
            errors.append(response.error)
        elif response.values["STEP"] == 2:
            (answer,) = await collect(triton, {"CANCEL": "job-1"})
            cancelled = json.loads(answer.values["INFO"])["cancelled"]
    assert cancelled is True
    assert len(errors) == 1
    assert "[CANCELLED]" in errors[0]
    (answer,) = await collect(triton, {"CANCEL": "job-1"})
    assert json.loads(answer.values["INFO"])["cancelled"] is False


async def test_a_cancelled_stream_frees_the_engine(triton: Any) -> None:
    started = asyncio.Event()

    async def leave() -> None:
        async for response in stream(triton, removal(**LONG), "job-2"):
            if response.values.get("STEP", 0) >= 1:
                started.set()

    task = asyncio.create_task(leave())
    await asyncio.wait_for(started.wait(), 120)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30):
        while True:
            (answer,) = await collect(triton, {"CANCEL": ""})
            info = json.loads(answer.values["INFO"])
            if info["running"] == info["waiting"] == 0:
                break
            await asyncio.sleep(0.05)


async def test_a_full_queue_refuses_and_loses_nothing(triton: Any) -> None:
    (answer,) = await collect(triton, {"CANCEL": ""})
    bound = json.loads(answer.values["INFO"])["max_queue_size"]
    ahead = stream(triton, removal(**LONG), "ahead")
    # Until the engine works on the one ahead, it takes a place in the queue.
    async for response in ahead:
        if response.values["STEP"] >= 1:
            break
    tasks = [asyncio.create_task(collect(triton, removal(), f"full-{n}")) for n in range(3 * bound)]
    # Until the one ahead has left the engine, only a refusal can end another.
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await collect(triton, {"CANCEL": "ahead"})
    assert "[CANCELLED]" in str([response.error async for response in ahead][-1])
    jobs = await asyncio.gather(*tasks)
    ends = [job[-1].error or "" if job[-1].error else "done" for job in jobs]
    refused = [end for end in ends if "[UNAVAILABLE]" in end]
    assert ends.count("done") >= bound
    assert len(refused) >= 1
    assert ends.count("done") + len(refused) == len(ends)


async def test_two_live_jobs_may_not_share_a_request_id(triton: Any) -> None:
    first = stream(triton, removal(**LONG), "twin")
    await anext(first)
    second = (await collect(triton, removal(), "twin"))[-1].error
    assert second is not None
    assert "[INVALID_ARGUMENT]" in second
    await collect(triton, {"CANCEL": "twin"})
    errors = [response.error async for response in first if response.error]
    assert len(errors) == 1
    assert "[CANCELLED]" in errors[0]


async def test_debug_pictures_are_left_out_for_who_does_not_want_them(triton: Any) -> None:
    last = (await collect(triton, removal(DEBUG=np.array([False]))))[-1]
    info = json.loads(last.values["INFO"])
    assert info["debug_info"] is None
    assert info["parameters_used"]["task_type"] == "removal"


async def test_edit_conditions_serves_a_direct_client_too(triton: Any) -> None:
    values = {
        "PROMPT": " ",
        "IMAGE": scene(),
        "CONDITIONAL_IMAGE_0": square_mask(),
        "INPUT_QUALITY": "original",
    }
    result = await triton.infer("edit_conditions", tensors(values))
    # An eighth of 1024x1024 pixels, and the grid's padding.
    assert result.as_numpy("CONDITIONS").shape == (1, 3, 384, 384, 3)
    assert (result.as_numpy("PICTURE") == decode(scene())).all()
    assert result.as_numpy("REGIONS").tolist() == [[0, 0, 64, 64]]
    assert result.as_numpy("CONTENT").tolist() == [[362, 362]]
    assert result.as_numpy("PROMPT")[0].decode() == "remove object"
    assert result.as_numpy("TASK_TYPE")[0].decode() == "removal"
    assert result.as_numpy("COMPOSITED").tolist() == [False]
    assert result.as_numpy("PROFILE") is None
