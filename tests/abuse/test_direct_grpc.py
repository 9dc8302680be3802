"""Attacks of a direct client, which the frontend's bounds do not see."""

from __future__ import annotations

import asyncio
import struct
import threading
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.mask_tensors import SMART_MASK
from tests.fakes.web_client import WebClient, edit
from tests.integration.server import PATIENCE, copied_repository, launched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.server import Server

    from .good_client import GoodClient

FEW, MANY = 200_000, 8_000_000
TEXTS = [
    (table.model, spec.name)
    for table in (IMAGE_EDIT, SMART_MASK)
    for spec in table.inputs
    if spec.datatype == "BYTES"
]


def of_empty_texts(model: str, tensor: str, count: int, shape: list[int]) -> Any:
    """Return a request of very many elements, four bytes each."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=tensor, datatype="BYTES", shape=shape)
    request.raw_input_contents.append(struct.pack("<I", 0) * count)
    return request


def sent(channel: grpc.Channel, request: Any) -> str:
    """Send a request by stream, as all models take it; return the error."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    left = threading.Event()

    def requests() -> Any:
        yield request
        left.wait(60)

    try:
        answer = next(iter(stub.ModelStreamInfer(requests(), timeout=60)))
        return str(answer.error_message)
    finally:
        left.set()


@pytest.mark.slow
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
async def test_millions_of_empty_texts(server: Server, good: GoodClient, count: int) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with good:
        before = psutil.Process(server.stub("image_edit").pid).memory_info().rss
        with grpc.insecure_channel(server.triton_url, options=options) as channel:
            for model, tensor in TEXTS:
                for shape in ([1], [count]):
                    request = of_empty_texts(model, tensor, count, shape)
                    error = await asyncio.to_thread(sent, channel, request)
                    assert f"{model}" in error, (tensor, error)
                    assert "unexpected" in error, (tensor, error)
        after = psutil.Process(server.stub("image_edit").pid).memory_info().rss
        good.note(f"image_edit's process: {before / 1e6:.0f} -> {after / 1e6:.0f} MB")
        await good.worked_on()


# Put into edit_conditions: it is at some prompts for as long as a file is there.
HOLD = """
        for tensor in request.inputs():
            if tensor.name() == "PROMPT" and b"hold" in tensor.as_numpy()[0]:
                while __import__("os").path.exists({file!r}):
                    __import__("time").sleep(0.05)
"""


def patched(path: Path, place: str, text: str) -> None:
    """Put a text behind a place of a file."""
    before, found, after = path.read_text().partition(place)
    assert found
    path.write_text(before + place + text + after)


@pytest.mark.slow
async def test_a_thread_that_is_held_makes_its_model_unready(tmp_path: Path) -> None:
    repository = copied_repository(tmp_path)
    conditions, model = (
        repository / name / "1" / "model.py" for name in ("edit_conditions", "image_edit")
    )
    holding = tmp_path / "holding"
    holding.touch()
    hold = HOLD.format(file=str(holding))
    patched(conditions, "        internal.refuse_clients(request)", hold)
    patched(model, "from model_kit.deadlines import STUCK_S", "\n\ndeadlines.LATE_S = 2.0\n")
    settings = {"MODEL_REPOSITORY": str(repository)}
    with launched(tmp_path / "log", PATIENCE | settings) as server:
        async with WebClient(server.url) as client:
            task_id = await client.submit(edit(prompt="hold it"))
            late = "the building of an edit's conditions has not come to an end"
            async with asyncio.timeout(60):
                while late not in (answer := await client.http.get("/readyz")).text:
                    await asyncio.sleep(0.1)
            assert answer.status_code == 503
            holding.unlink()
            # Unready is no death: the edit ends, and then the server is ready.
            assert (await client.follow(task_id))[-1]["status"] == "done"
            await asyncio.to_thread(server.wait_ready)
