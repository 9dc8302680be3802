"""Samples hold the conditions of serving in the order of serving, and a truth that fits."""

import numpy as np
import pytest

from export.demo_edits.samples import PROMPTS, Flow, Sample, draw_sample
from export.demo_edits.score import angular_error, psnr
from export.serving_code import MaskTool

SIZE = 96
SHOWN = {
    Flow.REMOVAL: ["original", "mask", "mae"],
    Flow.DESCRIBED: ["mask", "masked_bg"],
    Flow.REFERENCE: ["ref_img", "mask", "masked_bg"],
    Flow.TWO_SOURCE: ["original", "mask_A", "masked_R", "reference_image", "positioned_mask_R"],
    Flow.WHITE_BALANCE: ["input", "canny"],
}
CONDITIONS = {
    Flow.REMOVAL: 3,
    Flow.DESCRIBED: 2,
    Flow.REFERENCE: 3,
    Flow.TWO_SOURCE: 3,
    Flow.WHITE_BALANCE: 2,
}


def samples(flow: Flow, count: int = 8, size: int = SIZE) -> list[Sample]:
    return [draw_sample(flow, [3, index], size) for index in range(count)]


@pytest.mark.parametrize("flow", Flow)
def test_every_flow_is_the_one_that_serving_takes(flow: Flow) -> None:
    for sample in samples(flow, 3):
        assert list(sample.conditions.shown) == SHOWN[flow]
        assert len(sample.conditions.images) == CONDITIONS[flow]
        assert sample.request.task == flow.task
        assert (sample.scene.source == sample.request.picture.native).all()
        assert sample.truth.shape == sample.scene.source.shape == (SIZE, SIZE, 3)
        assert {image.shape for image in sample.conditions.images} == {(SIZE, SIZE, 3)}


@pytest.mark.parametrize("flow", Flow)
def test_a_seed_names_a_sample(flow: Flow) -> None:
    first, again = samples(flow, 1) + samples(flow, 1)
    np.testing.assert_array_equal(first.truth, again.truth)
    np.testing.assert_array_equal(
        np.stack(first.conditions.images), np.stack(again.conditions.images)
    )
    assert first.request.prompt == again.request.prompt


@pytest.mark.parametrize("flow", [flow for flow in Flow if flow is not Flow.WHITE_BALANCE])
def test_nothing_is_asked_for_outside_the_mask(flow: Flow) -> None:
    for sample in samples(flow):
        positioned = sample.scene.positioned
        mask = sample.request.mask if positioned is None else positioned
        assert mask is not None
        outside = mask == 0
        assert psnr(sample.truth, sample.scene.source, outside) == np.inf
        assert psnr(sample.truth, sample.scene.source, ~outside) < 25


def test_a_removal_s_truth_is_close_to_the_fill() -> None:
    gains = []
    for sample in samples(Flow.REMOVAL, 12):
        assert sample.request.mask is not None
        inside = sample.request.mask > 127
        fill = sample.conditions.images[2]
        gains.append(
            psnr(fill, sample.truth, inside) - psnr(sample.request.picture.native, sample.truth)
        )
    assert np.median(gains) > 8


def test_a_two_source_truth_shows_the_reference_s_object_in_its_place() -> None:
    for sample in samples(Flow.TWO_SOURCE):
        assert sample.request.reference_image is not None
        assert sample.request.reference_mask is not None
        assert sample.scene.positioned is not None
        asked = sample.request.reference_mask > 250
        placed = sample.scene.positioned > 250
        wanted = sample.request.reference_image[asked].mean(axis=0)
        np.testing.assert_allclose(sample.truth[placed].mean(axis=0), wanted, atol=10)


def test_a_reference_has_the_colours_of_the_object_that_is_wanted() -> None:
    for sample in samples(Flow.REFERENCE):
        assert sample.request.reference_image is not None
        differs = (sample.truth != sample.scene.source).any(axis=2)
        shown = (sample.request.reference_image < 250).any(axis=2)
        if shown.mean() > 0.2:  # otherwise the object is white on white
            wanted = np.median(sample.truth[differs], axis=0)
            found = np.median(sample.request.reference_image[shown], axis=0)
            np.testing.assert_allclose(found, wanted, atol=30)


def test_white_balance_starts_from_another_light() -> None:
    for sample in samples(Flow.WHITE_BALANCE):
        assert angular_error(sample.scene.source, sample.truth) > 2
        assert sample.request.mask is None
        assert sample.request.extra_images == ()


def test_prompts_name_the_object_or_ask_for_the_task() -> None:
    for flow in Flow:
        for sample in samples(flow):
            assert sample.request.prompt
            assert "{" not in sample.request.prompt
    removal = {sample.request.prompt for sample in samples(Flow.REMOVAL, 40)}
    assert "remove object" in removal
    assert len(removal) >= len(PROMPTS[Flow.REMOVAL])


def test_brushes_come_where_their_margin_leaves_something() -> None:
    def tools(size: int) -> set[MaskTool | None]:
        drawn = (draw_sample(Flow.WHITE_BALANCE, [4, index], size) for index in range(40))
        return {sample.request.mask_tool for sample in drawn}

    assert tools(64) == {None}
    assert tools(256) == {None, MaskTool.BRUSH}
