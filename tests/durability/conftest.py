"""Owns the stand-ins for Triton that outlive the frontends which tests kill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.frontends import Cluster
from tests.fakes.triton_server import FakeTriton

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    """Provide a healthy stand-in for Triton."""
    async with FakeTriton() as fake:
        yield fake


@pytest.fixture
async def tritons(triton: FakeTriton) -> AsyncIterator[list[FakeTriton]]:
    async with FakeTriton() as other:
        yield [triton, other]


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, tritons: list[FakeTriton]
) -> AsyncIterator[Cluster]:
    store: dict[str, Any] = {}
    if getattr(request, "param", "") == "postgres":
        store["STORE_URL"] = request.getfixturevalue("postgres").new_database()
    made = Cluster(tmp_path, tritons, **store)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
