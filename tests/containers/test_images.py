"""What the images are made of."""

from __future__ import annotations

import os

from . import engine
from .stack import image

SLIM = "python:3.12-slim-trixie"
SLIM_BYTES = 130_000_000
"""At most what SLIM has."""
MOST_BYTES = 300_000_000


def test_the_frontend_on_a_slim_base_is_small(image_sizes: dict[str, int]) -> None:
    base = os.environ.get("PYTHON_IMAGE", SLIM)
    ours = image_sizes[image("frontend")] - engine.image_bytes(base)
    assert 50_000_000 < ours < MOST_BYTES - SLIM_BYTES


def test_the_images_of_triton_have_the_models_packages_once(image_sizes: dict[str, int]) -> None:
    layers = [set(engine.layers(image(name))) for name in ("triton", "export")]
    # The base's, the folders that are written, and the packages.
    assert len(layers[0] & layers[1]) >= 3
    assert image_sizes[image("export")] - image_sizes[image("triton")] < 1_000_000_000


def test_the_frontend_has_no_torch(overrides: object) -> None:
    listed = engine.docker(
        *("run", "--rm", "--network=none", "--entrypoint=python", image("frontend")),
        *("-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"),
    ).split()
    assert b"fastapi" in listed
    assert not {b"torch", b"diffusers", b"transformers", b"openvino"} & {*listed}
