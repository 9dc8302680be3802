from __future__ import annotations

from pathlib import Path

from frontend.launcher import repository
from frontend.settings import Settings

CONFIG = 'name: "{name}" backend: "python" {parameters}'
BUNDLE = 'parameters [ {{ key: "BUNDLE" value {{ string_value: "{path}" }} }} ]'


def write(folder: Path, name: str, config: str, parameters: str = "") -> None:
    path = folder / name / config
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(name=name, parameters=parameters))


def test_the_named_config_counts_where_a_model_has_one(tmp_path: Path) -> None:
    write(tmp_path, "b", "config.pbtxt", BUNDLE.format(path="/production"))
    write(tmp_path, "b", "configs/cpu.pbtxt", BUNDLE.format(path="../../demo"))
    write(tmp_path, "a", "config.pbtxt")
    assert repository.models(tmp_path, "cpu") == [
        repository.Model("a", None),
        repository.Model("b", tmp_path.parent / "demo"),
    ]
    assert repository.models(tmp_path, "")[1].bundle == Path("/production")


def test_config_names(tmp_path: Path) -> None:
    write(tmp_path, "a", "config.pbtxt")
    write(tmp_path, "b", "configs/cpu.pbtxt")
    write(tmp_path, "c", "configs/l4.pbtxt")
    assert repository.config_names(tmp_path) == {"cpu", "l4"}


def test_our_own_repository_launches_the_demo_bundles() -> None:
    folder = Settings().model_repository
    bundles = {model.name: model.bundle for model in repository.models(folder, "cpu")}
    assert bundles["image_edit"] == folder.parent / "bundles" / "demo"
    assert bundles["edit_conditions"] is None
    assert bundles["smart_mask"] == bundles["fastsam"] == folder.parent / "bundles" / "fastsam"
