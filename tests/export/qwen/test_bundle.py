"""The real bundle is built from the demo's small pipeline, in a hub cache without a network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from export import manifest
from export.__main__ import app
from export.qwen import bundle as qwen_bundle
from image_edit.engine.bundle import load_bundle
from image_edit.engine.engine import EditEngine
from image_edit.settings import Tuning
from image_edit.spec import EditSpec
from model_kit.errors import Code, CodedError

Export = Callable[[Path, Mapping[str, Path | str]], tuple[int, str]]

ROOT = Path(__file__).parents[3]
BASE, REVISION = "acme/small-edit", "0123456789abcdef0123456789abcdef01234567"
TIMEOUT_S = 500


@pytest.fixture
def hub(demo: Path, tmp_path: Path) -> Path:
    """HF_HOME, as the hub's client would have left it after a download of the demo's pipeline."""
    cache = tmp_path / "huggingface" / "hub" / "models--acme--small-edit"
    snapshot = cache / "snapshots" / REVISION
    (cache / "blobs").mkdir(parents=True)
    for path in (demo / "pipeline").rglob("*"):
        if path.is_file():
            blob = cache / "blobs" / str(manifest.fingerprint(path)["sha256"])
            shutil.copyfile(path, blob)
            link = snapshot / path.relative_to(demo / "pipeline")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return tmp_path / "huggingface"


@pytest.fixture
def export(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Run the command with the hub out of reach; return its exit code and output."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def run(out: Path, sources: Mapping[str, Path | str]) -> tuple[int, str]:
        variables = {f"MODEL_FILE_{name}": str(source) for name, source in sources.items()}
        done = CliRunner().invoke(app, arguments(out), env=variables)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run


def arguments(out: Path) -> list[str]:
    return ["qwen", "--out", str(out), "--base", BASE, "--revision", REVISION]


@pytest.fixture
def sources(demo: Path) -> dict[str, Path | str]:
    return {
        "INSERTION": demo / "adapters" / "insertion_cp.safetensors",
        "REMOVAL": demo / "adapters" / "removal_cp.safetensors",
    }


def spec(task_type: str) -> EditSpec:
    return EditSpec(
        task_type=task_type,
        prompt="remove it",
        negative_prompt=" ",
        images=np.zeros((1, 128, 128, 3), np.uint8),
        size=(128, 128),
        num_inference_steps=1,
        true_cfg_scale=1.0,
        guidance_scale=1.0,
        seed=0,
        static_schedule=False,
    )


def test_a_cached_base_and_two_adapters_become_a_bundle_that_serves_two_tasks(
    export: Export, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    out = tmp_path / "bundle"
    code, said = export(out, sources)
    assert code == 0, said
    assert "white-balance: no adapter, answered 501" in said
    written = manifest.verify(out)
    assert (written["name"], written["base"]) == ("small-edit", f"{BASE} at {REVISION}")
    assert written["adapters"]["removal"] | {"source": ""} == {
        "file": "adapters/removal_cp.safetensors",
        "source": "",
        "ranks": [16],
        "layers": 30,
        "kinds": 1,
    }
    assert written["image_area"] == 1024 * 1024
    bundle = load_bundle(out, Tuning("float32"), "cpu")
    assert bundle.image_area == 1024 * 1024
    assert tuple(bundle.adapters) == ("insertion", "removal")
    engine = EditEngine(bundle, None, 3.0)
    assert list(engine.prepare(spec("removal")))
    with pytest.raises(CodedError) as refused:
        list(engine.prepare(spec("white-balance")))
    assert refused.value.code is Code.UNIMPLEMENTED


@pytest.mark.slow
def test_nothing_is_asked_of_the_network(
    hub: Path, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "MODEL_FILE_REMOVAL": str(sources["REMOVAL"]),
    }
    # The process gets its own network namespace, in which nothing can be reached.
    command = ["unshare", "--net", "--map-root-user", sys.executable, "-W", "error"]
    done = subprocess.run(
        [*command, "-m", "export", *arguments(tmp_path / "bundle")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("this machine lets no process have a network of its own")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(manifest.verify(tmp_path / "bundle")["adapters"]) == {"removal"}


def test_hashing_tells_of_each_large_file(
    export: Export, tmp_path: Path, sources: dict[str, Path | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen_bundle, "LARGE_BYTES", 2**20)
    large = "hashing transformer/diffusion_pytorch_model.safetensors, 0.0 GB..."
    for _ in ("building", "checking"):
        code, said = export(tmp_path / "bundle", sources)
        assert code == 0, said
        assert said.count(large) == 1
        assert "hashing vae/config.json" not in said


def test_files_of_the_cache_are_linked_rather_than_copied(
    export: Export, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    assert export(tmp_path / "bundle", sources)[0] == 0
    weights = tmp_path / "bundle/pipeline/transformer/diffusion_pytorch_model.safetensors"
    assert weights.stat().st_nlink == 2
    assert not weights.is_symlink()


def identity(path: Path) -> tuple[int, int]:
    """Which file it is and when it was written; reading it changes the rest of `stat`."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def test_a_second_run_only_checks(
    export: Export, hub: Path, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    out = tmp_path / "bundle"
    assert export(out, sources)[0] == 0
    before = identity(out / "manifest.json")
    shutil.rmtree(hub)
    code, said = export(out, sources)
    assert code == 0, said
    assert identity(out / "manifest.json") == before
    (out / "pipeline" / "vae" / "config.json").write_text("{}")
    code, said = export(out, sources)
    assert code == 1
    assert "not in the hub's cache" in said.replace("\n", " ")


def test_another_adapter_makes_another_bundle(
    export: Export, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    out = tmp_path / "bundle"
    assert export(out, sources)[0] == 0
    swapped = {"INSERTION": sources["REMOVAL"], "REMOVAL": sources["INSERTION"]}
    assert export(out, swapped)[0] == 0
    files = manifest.verify(out)["files"]
    expected = manifest.fingerprint(Path(sources["REMOVAL"]))
    assert files["adapters/insertion_cp.safetensors"] == expected


def test_tasks_use_a_second_adapter_together(
    export: Export, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    out = tmp_path / "bundle"
    second = sources["INSERTION"]
    both = {
        "REMOVAL": f"{sources['REMOVAL']}, {second}",
        "WHITE_BALANCE": f"{sources['REMOVAL']},{second}",
    }
    code, said = export(out, both)
    assert code == 0, said
    written = manifest.verify(out)
    shared = written["adapters"]["removal"]["lightning"]
    assert written["adapters"]["white-balance"]["lightning"] == shared
    assert written["files"][shared] == manifest.fingerprint(Path(second))
    adapters = load_bundle(out, Tuning("float32"), "cpu").adapters
    assert adapters["removal"][1] == adapters["white-balance"][1]
    before = identity(out / "manifest.json")
    assert export(out, both)[0] == 0
    assert identity(out / "manifest.json") == before
    assert export(out, both | {"REMOVAL": sources["REMOVAL"]})[0] == 0
    assert "lightning" not in manifest.verify(out)["adapters"]["removal"]
    assert export(out, {"REMOVAL": f"{second},{second},{second}"})[0] == 1


def test_a_damaged_file_in_the_cache_is_found(
    export: Export, hub: Path, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    weights = next(hub.rglob("snapshots/*/text_encoder/*.safetensors")).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, said = export(tmp_path / "bundle", sources)
    assert code == 1
    assert "text_encoder/model.safetensors: damaged" in said
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "no adapter"),
        ({"REMOVAL": "/nowhere/removal.safetensors"}, "no such file"),
        ({"REMOVAL": "acme/adapters:removal.safetensors"}, "not in the hub's cache"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    export: Export, tmp_path: Path, given: dict[str, str], expected: str
) -> None:
    code, said = export(tmp_path / "bundle", given)
    assert code == 1
    assert expected in said
    assert len(said.splitlines()) <= 2


def test_another_pipeline_is_refused(
    export: Export, hub: Path, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    index = next(hub.rglob("model_index.json"))
    index.unlink()
    index.write_text(json.dumps({"_class_name": "QwenImagePipeline"}))
    code, said = export(tmp_path / "bundle", sources)
    assert code == 1
    assert "QwenImagePipeline, but" in said


def test_a_folder_of_something_else_is_left_alone(
    export: Export, tmp_path: Path, sources: dict[str, Path | str]
) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert export(out, sources)[0] == 1
    assert (out / "thesis.tex").read_text() == "mine"
