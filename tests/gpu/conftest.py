"""Owns asking for a GPU: without one, these tests say so and are skipped."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
