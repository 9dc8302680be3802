"""Runs a long edit as a Triton client inside the frontend's image; writes each stage as it comes.

Reads the picture from stdin; the arguments are Triton's address and how many seconds the edit is
to take.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def tensor(name: str, value: bytes | int, kind: str) -> Any:
    """Return an input tensor of one element, of type BYTES or INT32."""
    found = InferInput(name, [1], kind)
    array = np.array([value], np.object_ if kind == "BYTES" else np.int32)
    found.set_data_from_numpy(array)
    return found


async def stages(
    client: InferenceServerClient, picture: bytes, steps: int
) -> AsyncGenerator[tuple[str, int]]:
    """Run an edit; yield stage and step of each response."""

    async def requests() -> AsyncGenerator[dict[str, Any]]:
        yield {
            "model_name": "image_edit",
            "inputs": [
                tensor("PROMPT", b"more light", "BYTES"),
                tensor("IMAGE", picture, "BYTES"),
                tensor("TASK_TYPE", b"white-balance", "BYTES"),
                tensor("INPUT_QUALITY", b"resized", "BYTES"),
                tensor("NUM_INFERENCE_STEPS", steps, "INT32"),
            ],
        }

    async for result, error in client.stream_infer(requests()):
        if error is not None:
            raise error
        stage = result.as_numpy("STAGE")[0].decode()
        yield stage, int(result.as_numpy("STEP")[0])
        if stage == "done":
            return


async def main(address: str, seconds: float, picture: bytes) -> None:
    """Learn how long a step takes here, then run an edit that takes as long as asked."""
    async with InferenceServerClient(address) as client:
        started: dict[int, float] = {}
        async for _, step in stages(client, picture, 4):
            started.setdefault(step, time.monotonic())
        # The quickest one, because whatever else runs here slows some down.
        step_s = min(started[step + 1] - started[step] for step in (1, 2))
        steps = int(seconds / step_s)
        async for stage, step in stages(client, picture, min(max(steps, 3), 100)):
            sys.stdout.write(f"{stage} {step}\n")
            sys.stdout.flush()


asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.stdin.buffer.read()))
