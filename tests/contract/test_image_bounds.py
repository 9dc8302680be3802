"""The frontend and the models judge images by the same rule."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_copy_of_image_bounds_is_the_same() -> None:
    original = (ROOT / "frontend" / "image_bounds.py").read_bytes()
    copies = list(ROOT.glob("model_repository/*/1/image_bounds.py"))
    assert copies
    for copy in copies:
        assert copy.read_bytes() == original, copy
