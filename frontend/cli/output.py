"""Owns the files that the commands write: checked before any work, and never half written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from frontend.cli.console import BAD_INPUT, FAILED, fail, opened

if TYPE_CHECKING:
    from collections.abc import Mapping

# Others cannot hold a colour profile or transparency, or change the size as .ico does.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# Pillow's own choice is 75, which shows.
LOSSY: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}}


def check_apart(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Exit if a file would be written over one that is read, or over another that is written.

    Args:
        outputs: option -> its file; None: not given.
        inputs: likewise.
    """
    pairs = itertools.chain(
        itertools.product(outputs.items(), inputs.items()),
        itertools.combinations(outputs.items(), 2),
    )
    for (name, path), (other, other_path) in pairs:
        if path and other_path and _same(path, other_path):
            fail(f"{name} and {other} are the same file: {path}", BAD_INPUT)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # there is none yet
        return os.path.realpath(one) == os.path.realpath(other)


class Output:
    """A picture file that is to be written; the format is that of the path's suffix.

    Says what is wrong and exits if it could not be written.

    Args:
        path: where to; a file that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._format = FORMATS.get(path.suffix.lower(), "")
        if problem := self._problem():
            fail(f"cannot write {path}: {problem}", BAD_INPUT)

    def _problem(self) -> str | None:
        if not self._format:
            *names, last = FORMATS
            known = f"{', '.join(names)} and {last} are known"
            return f"unknown file extension: {self.path.suffix!r}; {known}"
        try:
            # A link stays a link.
            self._target = Path(os.path.realpath(self.path))
            self._part = self._target.parent / f".{self._target.name}.{os.getpid()}.part"
            if not self._target.parent.is_dir():
                return f"there is no folder {self.path.parent}"
            if self._target.exists():
                if not self._target.is_file():
                    return "it is no file"
                if not os.access(self._target, os.W_OK):
                    return "it is write-protected"
            # One that a process of this number left when it was killed.
            self._part.unlink(missing_ok=True)
            self._part.touch(exist_ok=False)
            self._part.unlink()
        except OSError as error:
            return error.strerror
        return None

    def write(self, picture: Image.Image | bytes, hint: str = "") -> None:
        """Write a picture, or say why not and exit.

        Args:
            picture: a picture, or an encoded PNG, which a .png file holds as it is. A colour
                profile is kept.
            hint: what the user may do if it fails.
        """
        try:
            with self._part.open("xb") as file:
                if isinstance(picture, bytes) and self._format == "PNG":
                    file.write(picture)
                else:
                    self._encode(picture, file)
            self._part.replace(self._target)
        except (OSError, ValueError) as error:  # ValueError: the format lacks the picture's mode
            fail(f"cannot write {self.path}: {error}{hint}", FAILED)
        finally:
            self._part.unlink(missing_ok=True)

    def _encode(self, picture: Image.Image | bytes, file: Any) -> None:
        image = opened(picture) if isinstance(picture, bytes) else picture
        profile = image.info.get("icc_profile")
        if self._format == "JPEG" and image.mode in ("RGBA", "LA"):
            # As the models see transparency.
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        image.save(file, self._format, icc_profile=profile, **LOSSY.get(self._format, {}))
