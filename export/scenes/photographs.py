"""Owns the photographs that come inside installed packages: backgrounds of the demo's scenes."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from export.errors import ExportError
from export.scenes.edits import Pixels

# Package, and path inside the package. Held-out photographs are only used to judge results.
TRAINING = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
)
HELD_OUT = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
)


def load(names: tuple[tuple[str, str], ...]) -> list[Pixels]:
    """Open photographs.

    Args:
        names: package and path inside the package, of each photograph.

    Returns:
        RGB uint8 [height, width, 3] each.

    Raises:
        ExportError: a package is not installed, or no longer has the file.
    """
    return [_open(package, path) for package, path in names]


def _open(package: str, path: str) -> Pixels:
    # Only the file is needed, so the package is found but not imported.
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ExportError(f"training takes {path} from {package}, which is not installed")
    file = Path(found.origin).parent / path
    if not file.is_file():
        raise ExportError(f"training takes {file} from {package}, which has no such file")
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
