"""The stack of the profile cpu, seen from outside, and what its containers may do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes.web_client import b64, check_stream, decode, edit
from tests.integration.mask_scenes import scene

from . import engine
from .stack import SERVICES, Stack

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient

# Prints each folder in which a file can be made, and nothing of what is in such a folder.
WRITABLE = """
import os, tempfile
for folder, names, _ in os.walk("/"):
    if folder in ("/proc", "/sys"):
        names.clear()
        continue
    try:
        tempfile.NamedTemporaryFile(dir=folder).close()
    except OSError:
        continue
    print(folder)
    names.clear()
"""
# Of its own, in memory, and gone with it.
IN_MEMORY = {"/tmp", "/dev/shm", "/dev/mqueue"}


async def test_an_edit_is_streamed_to_its_end(client: WebClient) -> None:
    events, result = await client.finish(edit())
    check_stream(events, steps=2)
    assert decode(result["image"]).shape == (64, 64, 3)


async def test_a_mask_is_found(client: WebClient) -> None:
    drawn = scene(1)
    request = {"image": b64(drawn.png), "points": [drawn.middle]}
    answer = await client.http.post("/api/smart-mask", json=request)
    assert answer.status_code == 200, answer.text
    mask = decode(answer.json()["mask_base64"])[:, :, 0] > 127
    common = np.count_nonzero(mask & drawn.truth) / np.count_nonzero(mask | drawn.truth)
    assert common > 0.8


async def test_a_running_edit_is_cancelled(client: WebClient) -> None:
    job = await client.submit(edit(num_inference_steps=100, input_quality="resized"))
    asked = False
    async for event in client.events(job):
        if event["current_step"] >= 1 and not asked:
            assert (await client.cancel(job)).status_code == 200
            asked = True
    assert event["status"] == "cancelled"


async def test_the_pages_are_there(client: WebClient) -> None:
    page = await client.http.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    described = (await client.http.get("/openapi.json")).json()
    assert "/api/generate/async" in described["paths"]


async def test_only_the_frontend_is_published_and_on_this_machine_alone(stack: Stack) -> None:
    ports = {name: stack.inspect(name)["NetworkSettings"]["Ports"] for name in SERVICES}
    published = {"HostIp": "127.0.0.1", "HostPort": str(stack.port)}
    assert ports["frontend"] == {"8080/tcp": [published]}
    assert not any(ports["triton-cpu"].values())
    networks = list(stack.inspect("triton-cpu")["NetworkSettings"]["Networks"])
    assert networks == [f"{stack.project}_models"]
    (network,) = json.loads(engine.docker("network", "inspect", *networks))
    assert network["Internal"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_nothing_more_than_it_must(stack: Stack, service: str) -> None:
    states = [
        dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        # The first process, and one that came later.
        for text in (stack.execute(service, "cat", f"/proc/{who}/status") for who in ("1", "self"))
    ]
    for state in states:
        assert "0" not in state["Uid"].split()
        assert "0" not in state["Gid"].split()
        assert state["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(state[kind], 16) == 0, kind
    host = stack.inspect(service)["HostConfig"]
    assert host["Privileged"] is False
    # So /dev/shm is the container's own, and ends with it.
    assert host["IpcMode"] == "private"


@pytest.mark.parametrize(
    ("service", "volumes"),
    [
        ("frontend", {"/var/lib/artmancer"}),
        ("triton-cpu", {"/run/artmancer", "/var/cache/artmancer"}),
    ],
)
def test_a_container_writes_to_memory_and_its_volumes_alone(
    stack: Stack, service: str, volumes: set[str]
) -> None:
    written = stack.execute(service, "python3", "-c", WRITABLE)
    assert set(written.split()) == IN_MEMORY | volumes
    assert stack.inspect(service)["HostConfig"]["ReadonlyRootfs"] is True
