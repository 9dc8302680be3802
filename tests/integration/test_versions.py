"""Measuring a version beside another one, here beside itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure

from benchmarks import versions

if TYPE_CHECKING:
    from .server import Server


@pytest.mark.slow
async def test_a_version_is_measured_beside_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "STEPS", 2)
    found = await versions.measure(server.url, server.url, pairs=2)
    assert set(found["ms"]) == {
        "submission",
        "first event",
        "edit of 2 steps",
        "the same, less the model's own time",
        "first click",
        "repeated click",
    }
    for each in found["ms"].values():
        assert 0 < each["before"]["min"] <= each["before"]["max"]
        assert len(each["ratio"]["samples"]) == 2
    assert (
        found["ms"]["edit of 2 steps"]["after"]["min"] > found["ms"]["submission"]["after"]["min"]
    )
    versions.draw(Figure().subplots(), found)
