"""The profiles for GPUs in the real tritonserver, as far as it goes without one."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.docker.test_triton_entrypoint import READY_TIMEOUT_S, entrypoint
from tests.fakes.local_triton import echo_settings
from tests.fakes.web_client import WebClient, edit

from .server import ROOT, copied_repository, running

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = ROOT / "model_repository"


@pytest.mark.parametrize("profile", ["", "a100-40gb", "h100"])
def test_triton_refuses_nothing_but_the_missing_gpu_and_bundle(
    profile: str, tmp_path: Path
) -> None:
    # fastsam's needs a backend that the local Triton lacks.
    for model in ("image_edit", "edit_conditions", "smart_mask"):
        shutil.copytree(REPOSITORY / model, tmp_path / model)
    settings = echo_settings(model_repository=tmp_path)
    with entrypoint(settings, *([f"--profile={profile}"] if profile else [])) as process:
        _, said = process.communicate(timeout=READY_TIMEOUT_S)
    assert process.returncode == 1
    failures = dict(re.findall(r"failed to load '(\w+)' version 1: (.*)", said))
    assert failures.keys() == {"image_edit", "smart_mask"}
    assert "specifies invalid or unsupported gpu id 0" in failures["image_edit"]
    assert "/bundles/fastsam/manifest.json cannot be read" in failures["smart_mask"]


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("a100-40gb", False), pytest.param("h100", True, marks=pytest.mark.slow)],
)
async def test_a_gpu_s_profile_edits_the_demo_on_a_cpu(
    name: str, compiled: bool, tmp_path: Path
) -> None:
    """All of the profile but its device, its weights and the sizes that suit them.

    Compiling takes minutes here.
    """
    repository = copied_repository(tmp_path)
    for model in ("fastsam", "smart_mask"):
        shutil.copy(repository / model / "configs" / "cpu.pbtxt", repository / model)
        (repository / model / "cpu.pbtxt").replace(repository / model / "config.pbtxt")
    profile = repository / "image_edit" / "configs" / f"{name}.pbtxt"
    text = profile.read_text()
    changes = [
        ("{ kind: KIND_GPU count: 1 gpus: [ 0 ] }", "{ kind: KIND_CPU count: 1 }"),
        ("/bundles/qwen-image-edit-2509", "../../bundles/demo"),
        ("1048576", "output"),
        ("1024x1024", "128x128"),
    ]
    if not compiled:
        key = '"COMPILE" value { string_value: '
        changes.append((f'{key}"true"', f'{key}"false"'))
    for of_gpu, of_cpu in changes:
        assert of_gpu in text
        text = text.replace(of_gpu, of_cpu)
    profile.write_text(text)
    settings = {"MODEL_REPOSITORY": str(repository), "MODEL_CONFIG_NAME": name}
    with running(tmp_path / "log", **settings) as server:
        async with WebClient(server.url) as client:
            events, result = await client.finish(edit())
            assert [event["current_step"] for event in events][-1] == 2
            assert result["status"] == "done"
