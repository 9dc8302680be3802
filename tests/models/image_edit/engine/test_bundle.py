import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from image_edit.engine.bundle import Bundle, load_bundle
from image_edit.settings import Tuning
from model_kit.bundles import BundleError


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_demo_bundle_loads_with_every_adapter(bundle: Bundle) -> None:
    assert bundle.name == "artmancer-demo"
    assert tuple(bundle.adapters) == ("insertion", "removal", "white-balance")
    names = {name for names in bundle.adapters.values() for name in names}
    assert set(bundle.pipeline.get_list_adapters()["transformer"]) == names
    assert len(names) == 3
    assert not bundle.pipeline.transformer.training


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def test_only_the_adapters_of_the_manifest_count(copy: Path) -> None:
    adapters = json.loads((copy / "manifest.json").read_text())["adapters"]
    rewrite(copy, adapters={"removal": adapters["removal"]})
    loaded = load_bundle(copy, Tuning("bfloat16"), "cpu")
    assert list(loaded.adapters) == ["removal"]
    assert {str(weight.dtype) for weight in loaded.pipeline.transformer.parameters()} == {
        "torch.bfloat16"
    }


def test_a_bundle_without_adapters_serves_nothing(copy: Path) -> None:
    rewrite(copy, adapters={})
    with pytest.raises(BundleError, match="lists no adapter"):
        load_bundle(copy, Tuning("float32"), "cpu")
