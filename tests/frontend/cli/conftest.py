"""Owns the picture that the commands are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.frontend.scripted_server import picture

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    path.write_bytes(picture())
    return path
