"""The demo's commands place a bundle and train one, and say in one line why they cannot."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export import manifest
from export.__main__ import app
from export.demo_edits import bundle as demo_bundle
from export.demo_edits.training import recipe as demo_training

from .training.tiny_training import RECIPE, make_quick


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "demo"
    demo_bundle.place(folder)
    return folder


def test_the_command_keeps_an_intact_bundle_and_replaces_a_damaged_one(
    bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(bundle, out)
    arguments = ["demo", "--out", str(out)]
    before = out.stat().st_ino

    kept = CliRunner().invoke(app, arguments)
    assert kept.exit_code == 0
    assert "every file intact" in kept.output
    assert out.stat().st_ino == before

    (out / manifest.ADAPTERS["insertion"]).unlink()
    rebuilt = CliRunner().invoke(app, arguments)
    assert rebuilt.exit_code == 0
    assert "put in place" in rebuilt.output
    assert contents(out) == contents(bundle)

    forced = CliRunner().invoke(app, [*arguments, "--force"])
    assert "put in place" in forced.output


def test_the_command_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    refused = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert refused.exit_code == 1
    assert "no bundle" in refused.output


def test_the_command_trains_and_refuses_a_workspace_of_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_quick(monkeypatch)
    monkeypatch.setattr(demo_training, "recipe", lambda seed, length: replace(RECIPE, seed=seed))
    arguments = ["demo-train", "--out", str(tmp_path / "demo"), "--workspace", str(tmp_path / "w")]
    trained = CliRunner().invoke(app, arguments)
    assert trained.exit_code == 0, trained.output
    assert "trained in" in trained.output
    assert manifest.verify(tmp_path / "demo")["training"]["recipe"]["seed"] == 0
    refused = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert refused.exit_code == 1
    assert "another recipe" in refused.output
