"""The step cache's benchmark counts passes and compares pictures with fully computed ones."""

import json

import pytest
from matplotlib.figure import Figure

from benchmarks import step_cache
from export.demo_edits import bundle as demo_bundle


@pytest.mark.slow
def test_a_threshold_that_skips_all_it_can_shows_in_passes_and_pictures() -> None:
    found = step_cache.measure(
        demo_bundle.SHIPPED, thresholds=(0.0001, 1.0), scenes=1, steps=3, size=64
    )
    json.dumps(found, allow_nan=False)
    careful, careless = found["thresholds"].values()
    assert careful["computed"] == 1
    assert all(each == {"mean": None, "min": None} for each in careful["psnr"].values())
    assert careless["computed"] < 1
    assert all(each["mean"] > 5 for each in careless["psnr"].values())
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    step_cache.draw(axes, found)
    assert len(axes.lines) == len(step_cache.FLOWS)
