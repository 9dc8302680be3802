"""Runs inside the frontend's image as a Triton client: writes each stage of one edit as it comes.

Reads the picture from stdin; the argument is Triton's address.
"""

from __future__ import annotations

import asyncio
import sys
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


async def main(address: str, picture: bytes) -> None:
    """Write a line for each response: stage and step."""

    async def requests() -> AsyncGenerator[dict[str, Any]]:
        yield {
            "model_name": "image_edit",
            "inputs": [
                tensor("PROMPT", b"more light", "BYTES"),
                tensor("IMAGE", picture, "BYTES"),
                tensor("TASK_TYPE", b"white-balance", "BYTES"),
                tensor("INPUT_QUALITY", b"resized", "BYTES"),
                tensor("NUM_INFERENCE_STEPS", 3, "INT32"),
            ],
        }

    async with InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                raise error
            stage = result.as_numpy("STAGE")[0].decode()
            sys.stdout.write(f"{stage} {result.as_numpy('STEP')[0]}\n")
            sys.stdout.flush()
            if stage == "done":
                return


asyncio.run(main(sys.argv[1], sys.stdin.buffer.read()))
