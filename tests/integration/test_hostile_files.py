"""Files made to harm, at every door that takes a picture: refused, and nobody else is disturbed.

By REST, by gRPC and by the command line. The quick tests send files that are small and already
refused. The soak test sends those that would take seconds and gigabytes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.abuse.hostile_files import HOSTILE, Hostile, blanks
from tests.fakes.web_client import WebClient, b64, edit
from tests.frontend.cli.command import run

from .direct_client import collect, removal
from .mask_scenes import numbered, scene
from .test_smart_mask_direct import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .server import Server

Json = dict[str, Any]

PICTURE, MASK = scene(500, 128).png, scene(500, 128).guidance()
GENERATE, CLICK = "/api/generate/async", "/api/smart-mask"
DETECT, CUT = "/api/smart-mask/detect", "/api/image-utils/extract-object"
ATTACKER = "127.0.0.2"
FIELDS = [
    (GENERATE, "input_image"),
    (GENERATE, "conditional_images.0"),
    (GENERATE, "conditional_images.1"),
    (GENERATE, "reference_image"),
    (GENERATE, "reference_mask_R"),
    (CLICK, "image"),
    (CLICK, "mask"),
    (DETECT, "image"),
    (CUT, "image"),
    (CUT, "mask"),
]
TENSORS = ["IMAGE", "CONDITIONAL_IMAGE_0", "CONDITIONAL_IMAGE_1", "REFERENCE_IMAGE"]
TENSORS += ["REFERENCE_MASK_R"]


def body(path: str, field: str, text: str) -> Json:
    """Return a request that is good but for one picture."""
    if path == CUT:
        return {"image": b64(PICTURE), "mask": b64(MASK), field: text}
    if path in (CLICK, DETECT):
        good: Json = {"image": b64(PICTURE), "points": [[3, 3]]}
        return good | ({"points": None} if field == "mask" else {}) | {field: text}
    name, _, index = field.partition(".")
    conditions = [b64(MASK), b64(PICTURE)]
    if index:
        conditions[int(index)] = text
    good = edit(input_image=b64(PICTURE), conditional_images=conditions)
    good |= {"task_type": "insertion", "reference_image": b64(PICTURE)}
    return good | ({} if index else {name: text})


def detail(path: str, answer: httpx.Response) -> str:
    """Return why a request was refused; detect answers 200 with an error, as its clients expect."""
    content: Json = answer.json()
    if path == DETECT:
        assert (answer.status_code, content["success"]) == (200, False)
        return str(content["error"])
    assert answer.status_code == 400, answer.text
    return str(content["detail"])


def named(path: str, field: str) -> str:
    """Return how the refusal of a picture begins."""
    return "Failed to cache image: " if path in (CLICK, DETECT) and field == "image" else field


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=lambda text: text)
async def test_every_field_refuses_them(http: httpx.AsyncClient, path: str, field: str) -> None:
    for hostile in HOSTILE:
        text = b64(hostile.make(hostile.small))
        answer = await http.post(path, json=body(path, field, text))
        assert detail(path, answer).startswith(named(path, field)), (hostile.name, answer.text)
        pixels = "is more than the" in answer.text  # an edit's pictures may have fewer
        assert pixels or hostile.says in answer.text, (hostile.name, answer.text)


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=lambda text: text)
async def test_every_field_refuses_base64_of_blanks(
    http: httpx.AsyncClient, path: str, field: str
) -> None:
    answer = await http.post(path, json=body(path, field, blanks(500_000)))
    assert detail(path, answer).startswith(named(path, field)), answer.text


@pytest.mark.parametrize("tensor", TENSORS)
async def test_every_tensor_of_an_edit_refuses_them(triton: Any, tensor: str) -> None:
    for hostile in HOSTILE:
        file = hostile.make(hostile.small)
        values: Json = {
            "IMAGE": PICTURE,
            "CONDITIONAL_IMAGE_0": MASK,
            "CONDITIONAL_IMAGE_1": PICTURE,
            "REFERENCE_IMAGE": PICTURE,
            "TASK_TYPE": "insertion",
            tensor: file,
        }
        [*_, last] = await collect(triton, removal(**values))
        assert last.error is not None
        assert f"[INVALID_ARGUMENT] {tensor}: " in last.error, (hostile.name, last.error)


@pytest.mark.parametrize("tensor", ["IMAGE", "MASK"])
async def test_every_tensor_of_a_mask_refuses_them(triton: Any, tensor: str) -> None:
    for hostile in HOSTILE:
        values: Json = {"IMAGE": PICTURE, "MASK": MASK, tensor: hostile.make(hostile.small)}
        with pytest.raises(InferenceServerException) as caught:
            await ask(triton, **values)
        assert f"[INVALID_ARGUMENT] {tensor}: " in str(caught.value), hostile.name
        assert hostile.says in str(caught.value), hostile.name


@pytest.mark.parametrize("hostile", HOSTILE[1::6], ids=lambda each: each.name)
def test_the_command_line_says_what_the_server_says(
    server: Server, tmp_path: Path, hostile: Hostile
) -> None:
    file = tmp_path / "hostile"
    file.write_bytes(hostile.make(hostile.small))
    for words in (
        ("edit", "--task", "white-balance", "--image", file, "--out", tmp_path / "out.png"),
        ("mask", "--image", file, "--point", "1,1", "--out", tmp_path / "out.png"),
    ):
        done = run(*words, url=server.url)
        assert done.returncode != 0
        assert hostile.says in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def attacks(files: list[bytes]) -> Iterator[tuple[str, Json]]:
    """Yield requests for ever: every file at every field, in turn."""
    texts = [*map(b64, files), blanks(len(b64(max(files, key=len))) // 3)]
    while True:
        for (path, field), text in itertools.product(FIELDS, texts):
            yield path, body(path, field, text)


async def attacked(
    server: Server, files: list[bytes], clicks: int, most_s: float
) -> tuple[int, list[float]]:
    """Attack with four clients, while another clicks on new pictures and edits one.

    Returns:
        How many attacks were answered meanwhile, and the seconds of each click.
    """
    requests = attacks(files)
    answered, taken, over = 0, [], asyncio.Event()

    async def attack() -> None:
        nonlocal answered
        # An address of its own: what one client uses up must not count as the other's.
        transport = httpx.AsyncHTTPTransport(local_address=ATTACKER)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=120, transport=transport
        ) as client:
            while not over.is_set():
                path, request = next(requests)
                answer = await client.post(path, json=request)
                assert answer.status_code in (200, 400, 413, 429, 503), answer.text
                answered += 1

    attackers = [asyncio.create_task(attack()) for _ in range(4)]
    drawn = scene(501, 256)
    async with WebClient(server.url) as client:
        task_id = await client.submit(edit(num_inference_steps=20))
        for image in numbered(drawn.png, clicks):
            request = {"image": b64(image), "points": [drawn.middle]}
            started = time.perf_counter()
            answer = await client.http.post(CLICK, json=request, timeout=most_s)
            taken.append(time.perf_counter() - started)
            assert answer.status_code == 200, answer.text
        await client.wait_status(task_id, "done", timeout_s=300)
        assert (await client.http.get("/readyz")).status_code == 200
    async with asyncio.timeout(300):
        while answered <= len(FIELDS) and not any(each.done() for each in attackers):
            await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*attackers)
    return answered, taken


async def test_an_attack_disturbs_nobody(server: Server) -> None:
    files = [hostile.make(hostile.small) for hostile in HOSTILE]
    answered, taken = await attacked(server, files, clicks=10, most_s=60)
    assert answered > len(FIELDS)
    assert len(taken) == 10


@pytest.mark.soak
async def test_the_dearest_files_disturb_nobody_and_leave_no_memory_behind(
    server: Server, triton: Any
) -> None:
    files = [hostile.make(hostile.large) for hostile in HOSTILE]
    before = server.resident()
    _, taken = await attacked(server, files, clicks=60, most_s=60)
    assert max(taken) < 2, taken
    for file in files:
        with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
            await ask(triton, IMAGE=file, AUTO_DETECT=np.array([True]))
    grown = server.resident() - before
    assert grown < 2**30, grown
