"""Edits end to end: REST to the real tritonserver and back."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes.web_client import (
    Json,
    WebClient,
    b64,
    check_stream,
    decode,
    edit,
    scene,
    square_mask,
)

if TYPE_CHECKING:
    from .server import Server

TASKS: dict[str, tuple[Json, list[str]]] = {
    "removal": ({"task_type": "removal"}, ["original", "mask", "mae"]),
    "insertion": ({"task_type": "insertion"}, ["mask", "masked_bg"]),
    "insertion with reference": (
        {"task_type": "insertion", "reference_image": b64(scene(48, seed=3))},
        ["ref_img", "mask", "masked_bg"],
    ),
    "two-source insertion": (
        {
            "task_type": "insertion",
            "reference_image": b64(scene(48, seed=3)),
            "reference_mask_R": b64(square_mask(48)),
        },
        ["original", "mask_A", "masked_R", "reference_image", "positioned_mask_R"],
    ),
    "white-balance": (
        {"task_type": "white-balance", "conditional_images": None},
        ["input", "canny"],
    ),
}


@pytest.mark.parametrize("name", TASKS)
async def test_each_task_ends_in_a_picture(client: WebClient, name: str) -> None:
    changes, labels = TASKS[name]
    events, result = await client.finish(edit(num_inference_steps=3, **changes))
    check_stream(events, steps=3)
    assert decode(result["image"]).shape == (64, 64, 3)
    assert decode(result["image"]).std() > 1
    debug = result["debug_info"]
    assert debug["conditional_labels"] == labels
    assert debug["input_image_size"] == debug["output_image_size"] == "64x64"
    assert debug["lora_adapter"] == changes["task_type"]
    assert sorted(debug["loaded_adapters"]) == ["insertion", "removal", "white-balance"]
    for image in debug["conditional_images"]:
        decode(image)
    assert result["success"] is True
    assert result["generation_time"] > 0
    assert result["parameters_used"]["task_type"] == changes["task_type"]


async def test_two_source_keeps_every_pixel_outside_the_positioned_mask(client: WebClient) -> None:
    picture = {"input_image": b64(scene(128)), "conditional_images": [b64(square_mask(128))]}
    _, result = await client.finish(edit(**picture, **TASKS["two-source insertion"][0]))
    outside = decode(result["debug_info"]["positioned_mask_R"])[..., 0] == 0
    assert outside.sum() > 4000
    assert (decode(result["image"])[outside] == decode(scene(128))[outside]).all()


async def test_the_result_is_offered_in_every_documented_way(client: WebClient) -> None:
    _, result = await client.finish()
    task_id = result["task_id"]
    webp = await client.http.get(f"/api/generate/result-image/{task_id}")
    assert webp.status_code == 200
    assert webp.headers["cache-control"].startswith("private, max-age=")
    assert Image.open(io.BytesIO(webp.content)).size == (64, 64)
    generated = await client.http.get(f"/api/visualization/{result['request_id']}/generated")
    assert (decode(generated.content) == decode(result["image"])).all()
    original = await client.http.get(f"/api/visualization/{result['request_id']}/original")
    assert (decode(original.content) == decode(scene())).all()
    archive = await client.http.get(
        f"/api/visualization/{result['request_id']}/download", params={"format": "zip"}
    )
    assert len(zipfile.ZipFile(io.BytesIO(archive.content)).namelist()) >= 2


async def test_same_seed_same_pixels_and_no_seed_is_drawn_and_reported(client: WebClient) -> None:
    _, first = await client.finish(edit(seed=11))
    _, again = await client.finish(edit(seed=11))
    assert first["image"] == again["image"]
    _, drawn = await client.finish(edit(seed=None))
    seed = drawn["parameters_used"]["seed"]
    _, repeated = await client.finish(edit(seed=seed))
    assert drawn["image"] == repeated["image"]
    assert drawn["image"] != first["image"]


CHANGES: dict[str, Json] = {
    "prompt": {"prompt": "a quite different instruction"},
    "input_image": {"input_image": b64(scene(seed=1))},
    "mask": {"conditional_images": [b64(square_mask(low=0.1))]},
    "extra condition": {"conditional_images": [b64(square_mask()), b64(scene(seed=5))]},
    "width": {"width": 272},
    "height": {"height": 272},
    "num_inference_steps": {"num_inference_steps": 3},
    "true_cfg_scale": {"true_cfg_scale": 2.0},
    "guidance_scale where true_cfg_scale is null": {"true_cfg_scale": None, "guidance_scale": 6.0},
    "negative_prompt": {"negative_prompt": "blurry, low quality"},
    "seed": {"seed": 8},
    "task_type": {"task_type": "insertion"},
    "angle": {"angle": "wide-angle"},
    "background_preset": {"background_preset": "marble-surface"},
    "input_quality": {"input_quality": "resized"},
    "mask_tool_type": {"mask_tool_type": "brush"},
}


@pytest.mark.parametrize("name", CHANGES)
async def test_each_field_has_an_effect_on_the_picture(client: WebClient, name: str) -> None:
    _, plain = await client.finish()
    _, changed = await client.finish(edit(**CHANGES[name]))
    before, after = decode(plain["image"]), decode(changed["image"])
    assert before.shape != after.shape or (before != after).any()


async def test_the_static_schedule_has_an_effect(client: WebClient) -> None:
    # Of two steps both schedules make the same: from all noise to their terminal.
    _, plain = await client.finish(edit(num_inference_steps=4))
    _, changed = await client.finish(edit(num_inference_steps=4, enable_flowmatch_scheduler=True))
    assert plain["image"] != changed["image"]


@pytest.mark.parametrize("second", ["reference_image", "reference_mask_R"])
async def test_each_reference_field_has_an_effect(client: WebClient, second: str) -> None:
    both = TASKS["two-source insertion"][0]
    other = {"reference_image": scene(48, seed=9), "reference_mask_R": square_mask(48, 0.4)}
    _, plain = await client.finish(edit(**both))
    _, changed = await client.finish(edit(**both | {second: b64(other[second])}))
    assert plain["image"] != changed["image"]


async def test_width_and_height_are_exact_even_off_the_grid(client: WebClient) -> None:
    _, result = await client.finish(edit(width=301, height=263))
    assert decode(result["image"]).shape == (263, 301, 3)
    assert result["debug_info"]["output_image_size"] == "301x263"


async def test_null_task_type_is_insertion_with_a_reference_else_removal(client: WebClient) -> None:
    _, removal = await client.finish(edit(task_type=None))
    assert removal["parameters_used"]["task_type"] == "removal"
    reference = b64(scene(48, seed=3))
    _, insertion = await client.finish(edit(task_type=None, reference_image=reference))
    assert insertion["parameters_used"]["task_type"] == "insertion"


async def test_previews_come_only_when_asked(client: WebClient) -> None:
    events, _ = await client.finish(edit(preview=True, num_inference_steps=3))
    previews = [decode(e["preview_image"]) for e in events if e["stage"] == "denoising"]
    assert len(previews) == 3
    assert all(preview.shape[0] == preview.shape[1] for preview in previews)
    assert not np.array_equal(previews[0], previews[-1])
    events, _ = await client.finish()
    assert not any(event.get("preview_image") for event in events)


async def test_adapters_switch_without_leaking_into_one_another(client: WebClient) -> None:
    async def image(**changes: Any) -> str:
        _, result = await client.finish(edit(**changes))
        return str(result["image"])

    removal = await image()
    insertion = await image(task_type="insertion")
    assert await image() == removal
    assert await image(task_type="insertion") == insertion
    assert removal != insertion


async def test_the_known_client_s_legacy_fields_are_ignored(client: WebClient) -> None:
    legacy = {"mask_image": "x", "enable_mae_refinement": True, "enable_debug": False}
    _, plain = await client.finish()
    _, result = await client.finish(edit(**legacy, refine_mask_with_birefnet=True))
    assert plain["image"] == result["image"]


async def test_system_health_names_the_services(server: Server, client: WebClient) -> None:
    body = (await client.http.get("/api/system/health")).json()
    assert body["status"] == "healthy"
    assert body["services"]["generation"]["status"] == "healthy"
    assert body["services"]["job_manager"]["status"] == "healthy"


@pytest.mark.parametrize("path", ["generate/multi-steps", "image-utils/white-balance"])
async def test_endpoints_that_are_not_built_answer_501(client: WebClient, path: str) -> None:
    answer = await client.http.post(f"/api/{path}", json={})
    assert answer.status_code == 501
    assert isinstance(answer.json()["detail"], str)
