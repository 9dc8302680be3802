"""Owns reading a model's parameters from its config.pbtxt."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self


class Parameters:
    """The parameters of one model. Every reader raises ValueError, which names the parameter."""

    def __init__(self, values: Mapping[str, str], folder: Path) -> None:
        """Keep the parameters.

        Args:
            values: key to string_value; Triton may add keys of its own.
            folder: the model's folder, where relative paths start.
        """
        self._values = values
        self._folder = folder

    @classmethod
    def of_model(cls, args: Mapping[str, str]) -> Self:
        """Read what Triton passes to a model's `initialize`."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {key: value["string_value"] for key, value in parameters.items()}
        return cls(values, Path(args["model_repository"]))

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        if text := self._values.get(key):
            return text
        raise ValueError(f"parameter {key} is missing")

    def choice(self, key: str, choices: Iterable[str]) -> str:
        """Return one of the choices."""
        text = self.text(key)
        if text not in (known := tuple(choices)):
            raise ValueError(f"parameter {key} must be {' or '.join(known)}, not {text!r}")
        return text

    def flag(self, key: str) -> bool:
        """Return whether the parameter is `true` rather than `false`."""
        return self.choice(key, ("true", "false")) == "true"

    def positive(self, key: str) -> int:
        """Return a whole number above 0."""
        text = self.text(key)
        if not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise ValueError(f"parameter {key} must be a whole number above 0, not {text!r}")
        return int(text)

    def number(self, key: str, low: float, high: float) -> float:
        """Return a number from low to high."""
        text = self.text(key)
        number = _as_float(text)
        if not low <= number <= high:
            raise ValueError(f"parameter {key} must be a number of {low} to {high}, not {text!r}")
        return number

    def fraction(self, key: str) -> float:
        """Return a number between 0 and 1, both excluded."""
        text = self.text(key)
        number = _as_float(text)
        if not 0 < number < 1:
            raise ValueError(f"parameter {key} must be above 0 and below 1, not {text!r}")
        return number

    def path(self, key: str) -> Path:
        """Return an absolute path, of something that may be missing."""
        return (self._folder / self.text(key)).resolve()

    def optional_file(self, key: str) -> Path | None:
        """Return the path of a file that exists, or None for an empty text."""
        if self._values.get(key) == "":
            return None
        path = self._folder / self.text(key)
        if not path.is_file():
            raise ValueError(f"parameter {key}: there is no file {path}")
        return path


def _as_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # in no range
