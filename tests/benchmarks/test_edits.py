"""Methods without a network do what their names say; scores are valid JSON."""

import json
import math

import numpy as np
from matplotlib.figure import Figure

from benchmarks import edits
from export.demo_edits.results import held_out, scores
from export.demo_edits.samples import Flow

SIZE = 128


def test_grey_world_makes_the_mean_grey() -> None:
    sample = held_out(Flow.WHITE_BALANCE, 0, SIZE)
    before = sample.conditions.source.mean(axis=(0, 1))
    after = edits.grey_world(sample).mean(axis=(0, 1))
    assert np.ptp(before) > 10
    assert np.ptp(after) < 3


def test_telea_fills_the_mask_and_nothing_else() -> None:
    sample = held_out(Flow.REMOVAL, 0, SIZE)
    found = scores(sample, edits.filled(sample))
    assert found["outside"] == math.inf
    assert found["gain"] > 3


def test_a_request_holds_all_that_its_flow_needs() -> None:
    bodies = {flow: edits.request(held_out(flow, 0, SIZE), steps=3) for flow in Flow}
    for flow, body in bodies.items():
        assert body["num_inference_steps"] == 3
        assert bool(body["conditional_images"]) is flow.task.needs_mask
        assert bool(body["reference_image"]) is (flow in (Flow.REFERENCE, Flow.TWO_SOURCE))
        assert bool(body["reference_mask_R"]) is (flow is Flow.TWO_SOURCE)


def test_results_are_json_and_can_be_drawn() -> None:
    found = {}
    for flow in edits.SHOWN:
        sample = held_out(flow, 0, SIZE)
        each = [scores(sample, sample.conditions.source)]
        found[flow] = {SIZE: {edits.UNEDITED: edits.by_score(each)}}
    assert found[Flow.REMOVAL][SIZE][edits.UNEDITED]["outside"] is None  # nothing differs
    json.dumps(found, allow_nan=False)
    figure = Figure(figsize=(7, 4))
    edits.draw(figure.subplots(), {"steps": 8, "scores": found})
    panels = figure.axes[0].child_axes
    assert len(panels) == len(edits.SHOWN)
    assert all(panel.patches for panel in panels)
