"""Owns a stand-in for smart_mask: no network, and knobs for what is hard to provoke."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .pictures import encoded
from .wire import decode, model_config

MASK = encoded("PNG", (8, 8), "L")
NOTHING_FOUND = "[INVALID_ARGUMENT] FastSAM did not generate any masks: no object is at [1, 1]"


@dataclass
class MaskBehaviour:
    """What the fake does; change it at any time."""

    delay_s: float = 0.0
    """Time that any answer to a mask request takes."""
    refuse: tuple[grpc.StatusCode, str] | None = None
    """A status and its text for every mask."""
    cancels_missed: int = 0
    """So many cancels come before the requests that they name."""
    stubborn: bool = False
    """Does not obey cancels, though it answers them."""
    deaf: bool = False
    """Answers neither pings nor cancels."""
    dead: bool = False
    """Answers everything as Triton does for a model whose process died."""
    garbled: bool = False
    """Answers a mask without its tensors."""
    network_answers: bool = True
    """What it says of fastsam."""
    config: Any = field(default_factory=lambda: model_config("smart_mask/config.pbtxt"))
    """What it says its config is."""


class FakeMaskModel:
    """A smart_mask that remembers the pictures it has seen."""

    def __init__(self) -> None:
        self.behaviour = MaskBehaviour()
        self.known: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.cancels: list[str] = []
        self.cancelled: list[str] = []
        self.cut: list[str] = []
        self.most_at_once = 0
        # Each one's end where its delay does not decide it: whether by a cancel.
        self._live: dict[str, asyncio.Future[bool]] = {}

    @property
    def live(self) -> int:
        """Number of requests it has."""
        return len(self._live)

    def release(self) -> None:
        """Answer what it has, and from now on all that comes, without delay."""
        self.behaviour.delay_s = 0
        for ending in self._live.values():
            if not ending.done():
                ending.set_result(False)

    async def infer(self, request: Any, context: Any) -> Any:
        """Answer a ModelInfer."""
        inputs = decode(request.inputs, request.raw_input_contents)
        if self.behaviour.dead:
            text = "Stub process 'smart_mask_0_0' is not healthy."
            await context.abort(grpc.StatusCode.INTERNAL, text)
        if "CANCEL" in inputs:
            return await self._control(inputs["CANCEL"][0].decode())
        self.requests.append(inputs)
        assert request.id not in self._live
        self._live[request.id] = asyncio.get_running_loop().create_future()
        self.most_at_once = max(self.most_at_once, len(self._live))
        try:
            return await self._mask(request.id, inputs, context)
        except asyncio.CancelledError:
            self.cut.append(request.id)
            raise
        finally:
            del self._live[request.id]

    async def _mask(self, job_id: str, inputs: dict[str, Any], context: Any) -> Any:
        image_id = self._image_id(inputs)
        ending = self._live[job_id]
        await asyncio.wait([ending], timeout=self.behaviour.delay_s)
        if ending.done() and ending.result():
            self.cancelled.append(job_id)
            text = "[CANCELLED] the request was cancelled"
            await context.abort(grpc.StatusCode.CANCELLED, text)
        cached = image_id in self.known
        if "IMAGE" not in inputs and not cached:
            text = f"[NOT_FOUND] IMAGE_ID: not found or expired: {image_id}"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        if self.behaviour.refuse:
            await context.abort(*self.behaviour.refuse)
        self.known.add(image_id)
        if self.behaviour.garbled:
            return service_pb2.ModelInferResponse(model_name="smart_mask")
        info = {"timings": {"select": 0.001}, "detections": 3, "box": [0, 0, 8, 8]}
        return mask_response(
            MASK_IMAGE=MASK,
            IMAGE_ID=image_id.encode(),
            SCORE=0.75,
            CACHED=cached,
            POINTS_MISSED=[1],
            INFO=json.dumps(info).encode(),
        )

    def _image_id(self, inputs: dict[str, Any]) -> str:
        if "IMAGE" in inputs:
            return hashlib.sha256(inputs["IMAGE"][0]).hexdigest()
        image_id: str = inputs["IMAGE_ID"][0].decode()
        return image_id

    async def _control(self, job_id: str) -> Any:
        if self.behaviour.deaf:
            await asyncio.Event().wait()
        if job_id:
            self.cancels.append(job_id)
        found = job_id in self._live
        if found and self.behaviour.cancels_missed:
            self.behaviour.cancels_missed -= 1
            found = False
        if found and not self.behaviour.stubborn and not self._live[job_id].done():
            self._live[job_id].set_result(True)
        info = {
            "model": "fake-masks",
            "cancelled": found,
            "waiting": 0,
            "running": len(self._live),
            "max_queue_size": 8,
            "network_answers": self.behaviour.network_answers,
            "cache": {"images": len(self.known), "hits": 0},
        }
        return mask_response(INFO=json.dumps(info).encode())


def mask_response(**values: bytes | float | bool | list[int]) -> Any:
    """Build a ModelInferResponse as smart_mask sends it."""
    answer = service_pb2.ModelInferResponse(model_name="smart_mask")
    for name, value in values.items():
        shape = [1]
        if isinstance(value, list):
            datatype, raw = "INT32", struct.pack(f"<{len(value)}i", *value)
            shape = [len(value)]
        elif isinstance(value, bytes):
            datatype, raw = "BYTES", struct.pack("<I", len(value)) + value
        elif isinstance(value, bool):
            datatype, raw = "BOOL", struct.pack("<?", value)
        else:
            datatype, raw = "FP32", struct.pack("<f", value)
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        answer.raw_output_contents.append(raw)
    return answer
