from __future__ import annotations

import asyncio
import base64
import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from frontend.jobs.store import StoredBlob
from tests.fakes.pictures import b64, encoded
from tests.fakes.web_client import WebClient, edit

if TYPE_CHECKING:
    from tests.fakes.triton_server import FakeTriton


async def test_an_edits_pictures_as_files(client: WebClient) -> None:
    sent = encoded("JPEG")
    _, result = await client.finish(edit(input_image=b64(sent)))
    folder = f"/api/visualization/{result['request_id']}"
    original = await client.http.get(f"{folder}/original")
    assert (original.headers["content-type"], original.content) == ("image/jpeg", sent)
    generated = await client.http.get(f"{folder}/generated")
    assert generated.headers["content-type"] == "image/png"
    assert generated.content == base64.b64decode(result["image"])
    archive = await client.http.get(f"{folder}/download", params={"format": "zip"})
    assert archive.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(archive.content)) as files:
        assert {name: files.read(name) for name in files.namelist()} == {
            "original.jpeg": sent,
            "generated.png": generated.content,
        }


async def test_one_result_at_a_time_is_in_memory(
    client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = await client.finish()
    reading = most = 0
    whole = StoredBlob.whole

    async def counted(blob: StoredBlob) -> bytes:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        read = await whole(blob)
        reading -= 1
        return read

    monkeypatch.setattr(StoredBlob, "whole", counted)
    task_id = result["request_id"]
    paths = (f"visualization/{task_id}/download", f"generate/result/{task_id}?debug=false")
    answers = await asyncio.gather(*(client.http.get(f"/api/{path}") for path in paths * 4))
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert most == 1


async def test_before_the_end_there_is_the_original_only(
    client: WebClient, triton: FakeTriton
) -> None:
    triton.hold()
    task_id = await client.submit()
    await client.wait_status(task_id, "processing")
    folder = f"/api/visualization/{task_id}"
    assert (await client.http.get(f"{folder}/original")).status_code == 200
    for name in ("generated", "download"):
        answer = await client.http.get(f"{folder}/{name}")
        assert answer.status_code == 400
        assert "not completed yet" in answer.json()["detail"]
        assert answer.json()["ended"] is False


@pytest.mark.parametrize("name", ["original", "generated", "download"])
async def test_an_unknown_edit_is_404(client: WebClient, name: str) -> None:
    answer = await client.http.get(f"/api/visualization/x/{name}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Task x not found"})


async def test_only_zip_is_offered(client: WebClient) -> None:
    _, result = await client.finish()
    path = f"/api/visualization/{result['request_id']}/download"
    answer = await client.http.get(path, params={"format": "tar"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("format: ")
