"""Owns a Triton stand-in: real gRPC, no model, and knobs for faults that are hard to provoke."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.launcher import ports

from .mask_model import FakeMaskModel
from .pictures import png
from .wire import decode, model_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# What Triton itself says of a model whose process died, of one that it unloads, and of its memory.
DEAD = "Stub process 'image_edit_0_0' is not healthy.\nmore"
UNLOADED = "Request for unknown model: 'image_edit' has no available versions"
FULL = "Failed to increase the shared memory pool size"
TASKS = ("insertion", "removal", "white-balance")


@dataclass
class Behaviour:
    """What the fake does; change it at any time.

    Attributes:
        step_s: time of one denoising step.
        adapters: task types that it says it can run.
        fail_at: step after which a job fails, with `failure` as its error text.
        failure: error text.
        abort_at: step after which the stream ends with a gRPC error.
        end_at: step after which the stream ends without a result.
        hang_at: step after which a job says nothing more and cannot be cancelled.
        lively: gives signs of life also while a job says nothing more.
        clings_to: id of a job that it says it works on, whatever it does.
        deaf: answers neither pings nor cancels.
        missed_pings: number of pings that will get no answer.
        idle_pings: number of pings that will find the engine between two edits.
        ping_error: error text that pings and cancels are answered with.
        expected_seconds: time that it expects an edit to take.
        others: edits that other clients have waiting.
        refuse: error text for every edit, before anything else.
        fits: edits that its shared memory holds at a time.
        leaves: refuses the next edit, and from then on edits and pings, as a Triton that stops.
        config: what it says its config is.
        info: extra keys of a result's INFO.
    """

    step_s: float = 0.005
    adapters: tuple[str, ...] = TASKS
    fail_at: int | None = None
    failure: str = "[INTERNAL] it broke"
    abort_at: int | None = None
    end_at: int | None = None
    hang_at: int | None = None
    lively: bool = False
    clings_to: str = ""
    deaf: bool = False
    missed_pings: int = 0
    idle_pings: int = 0
    ping_error: str = ""
    others: int = 0
    expected_seconds: float | None = None
    refuse: str = ""
    fits: int = 1000
    leaves: bool = False
    config: Any = field(default_factory=model_config)
    info: dict[str, Any] = field(default_factory=dict)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """An image_edit of one engine that runs one job at a time, and a smart_mask beside it."""

    def __init__(self) -> None:
        self.masks = FakeMaskModel()
        self.behaviour = Behaviour()
        self.starts: list[str] = []
        """Ids of the requests, in order: each attempt of a job has one."""
        self.steps: list[tuple[str, float]] = []
        """Each step taken: the request's id, and when, by time.monotonic."""
        self.requests: dict[str, dict[str, Any]] = {}
        self.cancels: list[tuple[str, float]] = []
        """Each cancel that came: the job's id, and when, by time.monotonic."""
        self.cut_streams: list[str] = []
        self.most_at_once = 0
        self.pings = 0
        # Of those that no outgoing connection gets while it is killed.
        [self.port] = ports.free(1)
        self._cancelled: dict[str, asyncio.Event] = {}
        self.engine = asyncio.Lock()
        self._running_id = ""
        self._went_on_at = 0.0
        self.hanging = asyncio.Event()
        """Set once a job has come to `hang_at`: later changes of that are for other jobs."""
        self.at_engine: set[str] = set()
        """Ids of the requests that wait for `engine`, which runs one edit at a time."""
        self._stepping = asyncio.Event()
        self._stepping.set()
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def live(self) -> int:
        """Number of edits it has."""
        return len(self._cancelled)

    @property
    def in_band_cancels(self) -> list[str]:
        """Ids of the jobs that it was told to cancel, in order."""
        return [task_id for task_id, _ in self.cancels]

    async def start(self) -> None:
        """Listen, on the same port each time."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 1)]
        self._server = grpc.aio.server(options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Vanish."""
        await self.kill()

    async def kill(self) -> None:
        """Vanish: every stream breaks, and nothing listens."""
        await self._server.stop(None)

    def hold(self) -> None:
        """Let no edit take another step until `release`; it can be cancelled."""
        self._stepping.clear()

    def release(self) -> None:
        """Let edits take their steps again."""
        self._stepping.set()

    async def let_one(self) -> None:
        """Give the engine, which the caller holds, to one edit and take it back at its end."""
        while not self.at_engine:
            await asyncio.sleep(0.005)
        self.engine.release()
        await self.engine.acquire()

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        model = self.masks if request.name == "smart_mask" else self
        return service_pb2.ModelConfigResponse(config=model.behaviour.config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.model_name == "smart_mask"
        return await self.masks.infer(request, context)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        async for request in requests:
            inputs = decode(request.inputs, request.raw_input_contents)
            answers = (
                self._control(inputs["CANCEL"][0].decode())
                if "CANCEL" in inputs
                else self._edit(request.id, inputs, context)
            )
            async for answer in answers:
                yield answer

    async def _control(self, task_id: str) -> AsyncIterator[Any]:
        if self.behaviour.deaf:
            await asyncio.Event().wait()
        if not task_id:
            self.pings += 1
            if self.behaviour.missed_pings:
                self.behaviour.missed_pings -= 1
                await asyncio.Event().wait()
        if self.behaviour.ping_error:
            yield error(self.behaviour.ping_error)
            return
        found = task_id in self._cancelled
        # From one edit to the next the engine passes in no time at which it runs none.
        running = self.engine.locked() or bool(self.at_engine)
        if not task_id and self.behaviour.idle_pings:
            self.behaviour.idle_pings -= 1
            running = False
        if task_id:
            self.cancels.append((task_of(task_id), time.monotonic()))
        if found:
            self._cancelled[task_id].set()
        info = {
            "cancelled": found,
            "model": "fake",
            "adapters": list(self.behaviour.adapters),
            "waiting": len(self._cancelled) - running + self.behaviour.others,
            "running": int(running),
            "max_queue_size": 8,
            "image_area": 64,
            "running_id": self._clung_to() or self._running_id,
            "quiet_seconds": (
                0.0
                if self.behaviour.lively or not self._running_id
                else time.monotonic() - self._went_on_at
            ),
        }
        yield response("done", 0, 0, 1.0, INFO=json.dumps(info).encode())

    def _clung_to(self) -> str:
        """Return the request that the engine is to cling to; "" if it is to cling to none."""
        task_id = self.behaviour.clings_to
        return next((each for each in self.starts if task_of(each) == task_id), "")

    async def _edit(self, task_id: str, inputs: dict[str, Any], context: Any) -> AsyncIterator[Any]:
        self.requests[task_of(task_id)] = inputs
        self.starts.append(task_id)
        if self.behaviour.leaves:
            self.behaviour.refuse = self.behaviour.ping_error = UNLOADED
        if self.behaviour.refuse:
            yield error(self.behaviour.refuse)
            return
        if len(self._cancelled) >= self.behaviour.fits:
            yield error(FULL)
            return
        self._cancelled[task_id] = asyncio.Event()
        self.most_at_once = max(self.most_at_once, len(self._cancelled))
        try:
            async for answer in self._stages(task_id, inputs, context):
                yield answer
        except (asyncio.CancelledError, GeneratorExit):
            # The latter where the cut came while a response was being sent.
            self.cut_streams.append(task_of(task_id))
            raise
        finally:
            del self._cancelled[task_id]
            if self._running_id == task_id:
                self._running_id = ""
            self.at_engine.discard(task_id)

    async def _stages(
        self, task_id: str, inputs: dict[str, Any], context: Any
    ) -> AsyncIterator[Any]:
        steps = inputs["NUM_INFERENCE_STEPS"][0]
        yield response("loading", 0, steps, 0.0)
        self.at_engine.add(task_id)
        async with self.engine:
            self.at_engine.remove(task_id)
            self._running_id, self._went_on_at = task_id, time.monotonic()
            yield response("conditioning", 0, steps, 0.0)
            plan = {
                "size": [8, 8],
                "computed_sizes": [[8, 8]],
                "expected_seconds": self.behaviour.expected_seconds,
            }
            yield response("encoding", 0, steps, 0.0, INFO=json.dumps(plan).encode())
            for step in range(1, steps + 1):
                self._went_on_at = time.monotonic()
                if await self._is_cancelled(task_id):
                    yield error("[CANCELLED] the job was cancelled")
                    return
                self.steps.append((task_id, time.monotonic()))
                preview = b"RIFF" if inputs.get("PREVIEW", [False])[0] else b""
                yield response("denoising", step, steps, 0.9 * step / steps, PREVIEW_IMAGE=preview)
                if step == self.behaviour.fail_at:
                    yield error(self.behaviour.failure)
                    return
                if step == self.behaviour.abort_at:
                    await context.abort(grpc.StatusCode.INTERNAL, "aborted")
                if step == self.behaviour.end_at:
                    return
                if step == self.behaviour.hang_at:
                    self.hanging.set()
                    await asyncio.Event().wait()
            yield response("decoding", steps, steps, 0.95)
            info = {
                "debug_info": {"lora_adapter": inputs["TASK_TYPE"][0].decode()},
                "parameters_used": {"seed": inputs["SEED"][0]},
                "model_used": "fake_removal",
                "generation_time": 0.5,
                "timings": {"denoising": 0.4},
            } | self.behaviour.info
            info_json = json.dumps(info).encode()
            yield response("done", steps, steps, 1.0, IMAGE=png((8, 8)), INFO=info_json)

    async def _is_cancelled(self, task_id: str) -> bool:
        cancelled = self._cancelled[task_id]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.behaviour.step_s):
                await cancelled.wait()
        either = [asyncio.create_task(event.wait()) for event in (cancelled, self._stepping)]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in either:
                waiting.cancel()
        return cancelled.is_set()


def task_of(request_id: str) -> str:
    """Return the job of a request: behind its id may come the number of the attempt."""
    return request_id.rsplit(".", 1)[0]


def response(stage: str, step: int, total: int, progress: float, **images: bytes) -> Any:
    """Build one ModelStreamInferResponse as the model sends it."""
    answer = service_pb2.ModelInferResponse(model_name="image_edit")
    values = {"STAGE": stage.encode(), "STEP": step, "TOTAL_STEPS": total, "PROGRESS": progress}
    for name, value in (values | images).items():
        if isinstance(value, bytes):
            datatype, raw = "BYTES", struct.pack("<I", len(value)) + value
        elif isinstance(value, int):
            datatype, raw = "INT32", struct.pack("<i", value)
        else:
            datatype, raw = "FP32", struct.pack("<f", value)
        answer.outputs.add(name=name, datatype=datatype, shape=[1])
        answer.raw_output_contents.append(raw)
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


def error(message: str) -> Any:
    """Build the ModelStreamInferResponse of a failed request."""
    return service_pb2.ModelStreamInferResponse(error_message=message)
