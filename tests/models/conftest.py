"""Owns the bundle of the demo mask network, which `make test` puts in place."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def mask_bundle() -> Path:
    return ROOT / "bundles" / "fastsam"
