"""The frontend and the models judge and decode images by the same rules."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_both_copies_are_the_same() -> None:
    copies = [ROOT / room / "image_bounds.py" for room in ("frontend/pictures", "model_kit")]
    assert copies[0].read_bytes() == copies[1].read_bytes()
