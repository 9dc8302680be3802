"""The frontend and the models judge and decode images by the same rules."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["image_bounds.py", "image_decode.py"])
def test_every_copy_is_the_same(name: str) -> None:
    copies = [*ROOT.glob(f"frontend/{name}"), *ROOT.glob(f"model_repository/*/1/{name}")]
    assert len(copies) > 1
    assert len({copy.read_bytes() for copy in copies}) == 1, copies
