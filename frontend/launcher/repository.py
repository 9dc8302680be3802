"""Owns what the launcher reads in a model repository: which models, configs and bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from frontend.launcher.errors import LaunchError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Model:
    """One model as a server with a certain `--model-config-name` sees it."""

    name: str
    """Its folder's name."""
    bundle: Path | None
    """The folder that its parameter BUNDLE names; None if it has no such parameter."""


def config_names(repository: Path) -> set[str]:
    """Return every name that `--model-config-name` can pick in at least one model."""
    return {path.stem for path in repository.glob("*/configs/*.pbtxt")}


def models(repository: Path, config_name: str) -> list[Model]:
    """Return the models in `repository`, sorted by name.

    Triton takes `configs/<config_name>.pbtxt` if a model has one, and else `config.pbtxt`.

    Raises:
        LaunchError: a config is not a valid model configuration.
    """
    found = []
    for folder in sorted(path.parent for path in repository.glob("*/config.pbtxt")):
        named = folder / "configs" / f"{config_name}.pbtxt"
        path = named if named.exists() else folder / "config.pbtxt"
        try:
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        except text_format.ParseError as error:
            raise LaunchError(f"{path} is not a valid model configuration: {error}") from error
        bundle = config.parameters["BUNDLE"].string_value if "BUNDLE" in config.parameters else ""
        found.append(Model(folder.name, (folder / bundle).resolve() if bundle else None))
    return found
