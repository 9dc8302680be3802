"""Owns what is fuzzed: the decoding of a stranger's file, and the body of a stranger's request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from frontend.errors import InvalidInputError
from frontend.http.app import create_app
from frontend.pictures import codecs
from frontend.settings import Settings
from model_kit.colour import from_srgb
from model_kit.masks import MaskError, read_mask
from model_kit.pictures import ImageRefusedError, decode
from tests.fakes.pictures import b64
from tests.fakes.triton_server import FakeTriton
from tests.frontend.conftest import listening
from tests.fuzz.files import damaged, whole_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

Json = dict[str, Any]
Run = Callable[[bytes], None]

MAX_PIXELS = 2**18
"""So small that a picture which is decoded beyond it shows in the memory."""
PATHS = (
    "/api/generate",
    "/api/generate/async",
    "/api/smart-mask",
    "/api/smart-mask/detect",
    "/api/image-utils/extract-object",
)
TIMEOUT_S = 20.0
NOT_BUILT = 501


class Pictures:
    """Files through the decoder that frontend and models share."""

    def __init__(self) -> None:
        self._files = whole_files()

    def case(self, rng: Random) -> bytes:
        """A damaged file."""
        return damaged(rng, self._files)

    @contextlib.contextmanager
    def running(self) -> Iterator[Run]:
        """Yield what raises unless a file is read within the bounds, or refused."""
        yield check_picture


def check_picture(data: bytes) -> None:
    """Read a file in every way that the server does.

    Raises:
        Exception: anything but a refusal; AssertionError where the picture is no such picture.
    """
    try:
        picture = decode(data, MAX_PIXELS)
    except ImageRefusedError:
        return
    height, width = picture.native.shape[:2]
    shown = picture.shown()
    assert width * height <= MAX_PIXELS
    for pixels in (picture.native, shown):
        assert pixels.shape == (height, width, 3)
        assert pixels.dtype == np.uint8
    pixels = picture.native
    if picture.alpha is not None:
        assert picture.alpha.shape == (height, width)
        pixels = np.dstack([pixels, picture.alpha])
    if picture.profile is not None:
        assert from_srgb(shown, picture.profile).shape == shown.shape
    with contextlib.suppress(MaskError):
        assert read_mask(pixels).shape == (height, width)
    text = base64.b64encode(data)
    with contextlib.suppress(InvalidInputError):
        codecs.extract(text, text, MAX_PIXELS)


class Requests:
    """Bodies through the real app on a real socket, in front of a stand-in for Triton."""

    def __init__(self) -> None:
        self._files = whole_files()
        self._uploads = [b64(data) for data in self._files]

    def case(self, rng: Random) -> bytes:
        """A path, a line feed, and a body for it."""
        path = rng.choice(PATHS)
        request = self._request(rng, path)
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            name = rng.choice([*request, "unknown"])
            request[name] = self._value(rng, request.get(name))
        if rng.random() < 0.2:
            request.pop(rng.choice([*request]))
        body = json.dumps(request).encode()
        if rng.random() < 0.3:
            body = damaged(rng, [body])
        return path.encode() + b"\n" + body

    @contextlib.contextmanager
    def running(self) -> Iterator[Run]:
        """Yield what raises unless a request is answered in time, and by no 5xx."""
        with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
            client = runner.run(self._open(runner, stack))

            def send(case: bytes) -> None:
                path, _, body = case.partition(b"\n")
                runner.run(_check_answer(client, path.decode(), body))

            yield send

    async def _open(self, runner: asyncio.Runner, stack: contextlib.ExitStack) -> httpx.AsyncClient:
        opened = contextlib.AsyncExitStack()
        stack.callback(lambda: runner.run(opened.aclose()))
        triton = await opened.enter_async_context(FakeTriton())
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Decoding may keep the machine from answering pings for a while.
        settings = Settings(
            triton_url=triton.url,
            log_level="error",
            result_ttl_s=1,
            state_folder=state,
            ping_timeout_s=10,
        )
        url = await opened.enter_async_context(listening(create_app(settings)))
        return await opened.enter_async_context(httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S))

    def _request(self, rng: Random, path: str) -> Json:
        image, mask = rng.choice(self._uploads), rng.choice(self._uploads)
        if "extract" in path:
            return {"image": image, "mask": mask}
        if "mask" in path:
            return {
                "image": image,
                **rng.choice(
                    (
                        {"points": [[3, 4], [20.5, 9]], "point_labels": [1, 0]},
                        {"bbox": [1, 2, 30, 20]},
                        {"mask": mask},
                        {"auto_detect": True},
                    )
                ),
                "border_adjustment": 3,
                "use_blur": True,
                "request_id": "fuzz",
            }
        return {
            "prompt": "remove it",
            "input_image": image,
            "conditional_images": [mask],
            "task_type": rng.choice(("removal", "insertion", "white-balance", None)),
            "reference_image": rng.choice((None, image)),
            "reference_mask_R": rng.choice((None, mask)),
            "num_inference_steps": 1,
            "seed": rng.randrange(2**64),
            "width": rng.choice((None, 256)),
            "region": rng.choice(("full", "auto", [0, 0, 9, 9])),
            "true_cfg_scale": 4.0,
            "angle": "top-down",
        }

    def _value(self, rng: Random, now: object) -> object:
        if rng.random() < 0.4:
            return b64(damaged(rng, self._files))
        odd: list[object] = [
            *(None, True, "", "7", "ÿ\u202e\0", "x" * 5000, {}, [], [[]], [None], {"a": now}),
            *(-1, 0, 2**31, 2**63, 2**64, 1.5, -0.0, 1e308, float("nan"), float("inf")),
            *([now] * 9, [[1e308, -1e308]] * 3, [rng.random()] * 4, "\ud800", "data:;base64,"),
        ]
        return rng.choice(odd)


async def _check_answer(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code < 500 or answer.status_code == NOT_BUILT, (
        f"{path} answered {answer.status_code}: {answer.text[:300]}"
    )
    assert isinstance(answer.json(), dict)
    if answer.status_code >= 400:
        assert isinstance(answer.json()["detail"], str)
    elif task_id := answer.json().get("task_id"):
        # So that the queue never fills up.
        await client.get(f"/api/generate/stream/{task_id}")
