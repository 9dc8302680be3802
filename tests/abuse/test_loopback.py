"""Attacks over the loopback interface: a browser's pages, other users, Triton's own doors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as grpc_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from frontend.launcher import installation
from tests.fakes.web_client import WebClient, edit
from tests.integration.direct_client import collect, removal, tensors

from .good_client import CUP, PHOTO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.server import Server

    from .good_client import GoodClient

REBOUND = {"Host": "evil.example", "Origin": "http://evil.example"}
CROSS_SITE = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    """A stranger's connection to Triton's gRPC."""
    server.wait_ready()
    with grpc.insecure_channel(server.triton_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def regions(server: Server) -> list[Path]:
    """Return the shared memory of this server's Triton."""
    name = next(word for word in server.tritonserver().cmdline() if word.startswith("--id="))
    return list(SHARED_MEMORY.glob(f"{name.removeprefix('--id=')}*"))


async def test_a_page_that_was_made_to_lead_here(server: Server, good: GoodClient) -> None:
    async with good, WebClient(server.url) as victim:
        task_id = await victim.submit(edit(num_inference_steps=20))
        for headers, status in ((REBOUND, 421), (CROSS_SITE, 403)):
            async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as page:
                for answer in (
                    await page.get(f"/api/generate/result/{task_id}"),
                    await page.post(f"/api/generate/async/cancel/{task_id}"),
                    await page.post("/api/generate", json=edit()),
                    await page.options("/api/generate"),
                ):
                    assert answer.status_code == status
                    assert "access-control-allow-origin" not in answer.headers
        assert (await victim.follow(task_id))[-1]["status"] == "done"


def test_triton_opens_one_port_alone(server: Server) -> None:
    triton = server.tritonserver()
    connections = triton.net_connections()
    for process in triton.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a picture's worker, which has ended
            connections += process.net_connections()
    listening = {each.laddr for each in connections if each.status == psutil.CONN_LISTEN}
    found = {f"{address.ip.removeprefix('::ffff:')}:{address.port}" for address in listening}
    assert found == {server.triton_url}


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest),
        ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest),
        ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest),
        ("CudaSharedMemoryRegister", service_pb2.CudaSharedMemoryRegisterRequest),
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest),
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest),
        ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest),
        ("TraceSetting", service_pb2.TraceSettingRequest),
        ("LogSettings", service_pb2.LogSettingsRequest),
    ],
)
@pytest.mark.parametrize("key", [None, "", "artmancer", "0" * 64])
def test_nobody_controls_triton(stub: Any, method: str, request_type: Any, key: str | None) -> None:
    metadata = () if key is None else (("triton-grpc-protocol-artmancer", key),)
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(request_type(), timeout=10, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "restricted" in refused.value.details()


def test_triton_s_own_memory_is_not_a_strangers(server: Server, stub: Any) -> None:
    for region in regions(server):
        # The names that newer Tritons reserve for themselves.
        assert region.name.startswith("triton_python_backend_shm_region_")
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name="mine", key=f"/{region.name}", byte_size=4096
        )
        with pytest.raises(grpc.RpcError):
            stub.SystemSharedMemoryRegister(request, timeout=10)


async def test_what_a_direct_client_is_promised(server: Server, stub: Any) -> None:
    assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=10).live
    assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=10).ready
    assert stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=10).version
    for model in ("image_edit", "smart_mask"):
        assert stub.ModelReady(service_pb2.ModelReadyRequest(name=model), timeout=10).ready
        assert stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=model), timeout=10).inputs
        assert stub.ModelConfig(service_pb2.ModelConfigRequest(name=model), timeout=10).config.input
    async with grpc_aio.InferenceServerClient(server.triton_url) as client:
        last = (await collect(client, removal(), "direct"))[-1]
        assert last.error is None
        assert last.values["IMAGE"].startswith(b"\x89PNG")
        points = {"IMAGE": PHOTO.read_bytes(), "POINTS": np.array(CUP, np.float32)}
        answer = await client.infer("smart_mask", tensors(points))
        assert answer.as_numpy("MASK_IMAGE")[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("parameters", [None, {"artmancer_internal_key": "0" * 64}])
@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("edit_conditions", removal(SEED=None, NUM_INFERENCE_STEPS=None)),
        ("fastsam", {"images": np.zeros((1, 3, 640, 640), np.float32)}),
    ],
    ids=["edit_conditions", "fastsam"],
)
async def test_models_inside_are_not_for_strangers(
    server: Server, model: str, values: dict[str, Any], parameters: dict[str, str] | None
) -> None:
    async with grpc_aio.InferenceServerClient(server.triton_url) as client:
        with pytest.raises(InferenceServerException, match="called by other models only"):
            await client.infer(model, tensors(values), parameters=parameters)


def test_what_lies_on_disk_and_in_memory_is_private(server: Server) -> None:
    server.wait_ready()
    assert regions(server)
    folder = installation.cache_folder()
    grpc_port = server.triton_url.rpartition(":")[2]
    files = list(folder.glob(f"triton-{grpc_port}.*"))
    assert folder / f"triton-{grpc_port}.log" in files
    for path in [folder, *files, *regions(server)]:
        found = path.stat()
        assert found.st_uid == os.getuid()
        assert found.st_mode & 0o077 == 0, path
