"""Owns the stand-in for Triton that outlives the frontends which tests kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.triton_server import FakeTriton

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    """Provide a healthy stand-in for Triton."""
    async with FakeTriton() as fake:
        yield fake
