from typing import Any

import numpy as np
import pytest
from PIL.Image import Resampling

from edit_conditions.edges import canny
from edit_conditions.fill import telea
from edit_conditions.flows import Conditions, build_conditions
from edit_conditions.images import Pixels, resize
from edit_conditions.masks import Box, as_rgb, object_box
from edit_conditions.quality import InputQuality
from edit_conditions.request import EditRequest, MaskTool
from edit_conditions.shadow import cast_shadow, darken, expand_mask
from edit_conditions.task import Task
from model_kit.errors import CodedError

from .pictures import flat, mask_with, noise

IMAGE = noise(100, 80)
MASK = mask_with(100, 80, (40, 20, 30, 30))


def edit(task: Task, **changes: Any) -> EditRequest:
    inputs: dict[str, Any] = {
        "prompt": "x",
        "input_quality": InputQuality.ORIGINAL,
        "mask_tool": None,
        "image": IMAGE,
        "conditional_images": (as_rgb(MASK),),
        "reference_image": None,
        "reference_mask": None,
    }
    return EditRequest(task=task, **{**inputs, **changes})


def build(task: Task, shadow_hint: bool = False, **changes: Any) -> Conditions:
    return build_conditions(edit(task, **changes), telea, shadow_hint)


def cut(image: Pixels, mask: Pixels) -> Pixels:
    """The picture without the pixels of a hard mask."""
    return np.where(mask[:, :, None] > 0, np.uint8(0), image)


def same(actual: tuple[Pixels, ...], expected: list[Pixels]) -> bool:
    return len(actual) == len(expected) and all(
        a.dtype == np.uint8 and a.shape == b.shape and (a == b).all()
        for a, b in zip(actual, expected, strict=True)
    )


def test_removal() -> None:
    conditions = build(Task.REMOVAL)
    fill = telea(IMAGE, MASK)
    assert same(conditions.images, [cut(IMAGE, MASK), as_rgb(MASK), fill])
    assert list(conditions.shown) == ["original", "mask", "mae"]
    assert same(tuple(conditions.shown.values()), [IMAGE, MASK, fill])
    assert conditions.source is IMAGE
    assert conditions.composite_mask is None
    assert conditions.derived_masks == {}


def test_removal_shows_the_original_unprocessed() -> None:
    conditions = build(Task.REMOVAL, input_quality=InputQuality.RESIZED)
    assert conditions.shown["original"] is IMAGE
    assert conditions.source.shape == conditions.images[0].shape == (512, 512, 3)


@pytest.mark.parametrize("mask_tool", [None, MaskTool.BOX])
def test_only_a_brush_mask_grows_before_the_fill(mask_tool: MaskTool | None) -> None:
    small = mask_with(200, 200, (90, 90, 20, 20))
    changes: dict[str, Any] = {"image": noise(200, 200), "conditional_images": (as_rgb(small),)}
    plain = build(Task.REMOVAL, mask_tool=mask_tool, **changes)
    brush = build(Task.REMOVAL, mask_tool=MaskTool.BRUSH, **changes)
    grown = brush.derived_masks["mask_mae_dilated"]
    assert object_box(grown) == Box(55, 55, 90, 90)
    changed = (brush.images[2] != brush.source).any(axis=2)
    assert changed.sum() > 0.9 * (grown > 0).sum()
    assert not changed[grown == 0].any()
    assert (plain.images[2][small == 0] == plain.source[small == 0]).all()
    # The mask that the model sees is the user's either way.
    assert same(brush.images[:2], list(plain.images[:2]))


def test_the_fill_takes_the_soft_mask_above_127() -> None:
    soft = np.full((80, 100), 127, dtype=np.uint8)
    assert (build(Task.REMOVAL, conditional_images=(as_rgb(soft),)).images[2] == IMAGE).all()
    soft[30:40, 30:40] = 128
    changed = (build(Task.REMOVAL, conditional_images=(as_rgb(soft),)).images[2] != IMAGE).any(2)
    assert object_box(changed.astype(np.uint8) * 255) == Box(30, 30, 10, 10)


def test_insertion_without_reference() -> None:
    conditions = build(Task.INSERTION)
    assert same(conditions.images, [as_rgb(MASK), cut(IMAGE, MASK)])
    assert list(conditions.shown) == ["mask", "masked_bg"]
    assert conditions.composite_mask is None


def test_insertion_with_reference_stretches_it() -> None:
    reference = noise(37, 53)
    conditions = build(Task.INSERTION, reference_image=reference)
    stretched = resize(reference, (100, 80), Resampling.LANCZOS)
    assert same(conditions.images, [stretched, as_rgb(MASK), cut(IMAGE, MASK)])
    assert list(conditions.shown) == ["ref_img", "mask", "masked_bg"]
    assert conditions.composite_mask is None


def test_two_source_insertion() -> None:
    reference = noise(60, 60)
    reference_mask = mask_with(60, 60, (20, 20, 20, 20))
    conditions = build(
        Task.INSERTION, reference_image=reference, reference_mask=as_rgb(reference_mask)
    )
    stretched = resize(reference, (100, 80), Resampling.LANCZOS)
    assert conditions.composite_mask is not None
    positioned = conditions.composite_mask
    # The 90x90 copy around (55, 35) is taller than the picture: it starts at (10, -10).
    assert object_box(positioned) == Box(40, 20, 30, 30)
    keep = (255 - positioned[:, :, None].astype(int)) / 255
    background = np.rint(IMAGE * keep).astype(np.uint8)
    assert same(conditions.images, [stretched, as_rgb(positioned), background])
    assert conditions.derived_masks == {"positioned_mask_R": positioned}
    shown = conditions.shown
    assert list(shown) == ["original", "mask_A", "masked_R", "reference_image", "positioned_mask_R"]
    masked_reference = np.where(reference_mask[:, :, None] > 0, reference, np.uint8(255))
    assert same(tuple(shown.values()), [IMAGE, MASK, masked_reference, reference, positioned])


def test_two_source_stretches_mask_r_to_its_reference() -> None:
    # R is drawn on the 120x60 original; its reference is the square 60x60.
    reference_mask = mask_with(120, 60, (40, 20, 40, 20))
    conditions = build(
        Task.INSERTION, reference_image=noise(60, 60), reference_mask=as_rgb(reference_mask)
    )
    assert conditions.composite_mask is not None
    assert object_box(conditions.composite_mask) == Box(40, 20, 30, 30)


@pytest.mark.parametrize("reference", [None, noise(30, 30)])
def test_more_conditional_images_are_stretched_and_appended(reference: Pixels | None) -> None:
    extras = (noise(10, 30, seed=1), noise(200, 20, seed=2))
    images = (as_rgb(MASK), *extras)
    stretched = [resize(extra, (100, 80), Resampling.LANCZOS) for extra in extras]
    for task in (Task.REMOVAL, Task.INSERTION):
        conditions = build(task, conditional_images=images, reference_image=reference)
        assert same(conditions.images[-2:], stretched)
        assert list(conditions.shown)[-2:] == ["extra_1", "extra_2"]
        assert len(conditions.shown) == len(conditions.images)


def test_more_conditional_images_do_not_reach_the_other_flows() -> None:
    images = (as_rgb(MASK), noise(10, 30))
    two_source = build(
        Task.INSERTION,
        conditional_images=images,
        reference_image=noise(9, 9),
        reference_mask=flat(9, 9, 255),
    )
    assert len(two_source.images) == 3
    assert len(build(Task.WHITE_BALANCE, conditional_images=images).images) == 2


def test_white_balance() -> None:
    conditions = build(Task.WHITE_BALANCE, conditional_images=())
    edges = as_rgb(canny(IMAGE))
    assert same(conditions.images, [IMAGE, edges])
    assert list(conditions.shown) == ["input", "canny"]
    assert conditions.composite_mask is None


def test_mask_and_input_share_their_geometry_whatever_their_sizes() -> None:
    image = flat(400, 200, 255)
    for scale in (0.5, 1, 4):
        width, height = int(400 * scale), int(200 * scale)
        mask = mask_with(width, height, (width // 4, height // 4, width // 2, height // 2))
        conditions = build(
            Task.INSERTION,
            image=image,
            conditional_images=(as_rgb(mask),),
            input_quality=InputQuality.RESIZED,
        )
        # The picture lies at rows 128..384 of the 512 square.
        assert object_box(conditions.images[0][:, :, 0].copy()) == Box(128, 192, 256, 128)
        assert conditions.images[1][256, 256].tolist() == [0, 0, 0]


def test_the_reference_is_not_padded() -> None:
    conditions = build(
        Task.INSERTION,
        reference_image=flat(20, 10, 255),
        input_quality=InputQuality.RESIZED,
    )
    assert (conditions.images[0] == 255).all()


def test_masks_are_resized_softly_except_for_two_sources() -> None:
    halves = as_rgb(mask_with(10, 8, (4, 2, 3, 3)))
    soft = build(Task.INSERTION, conditional_images=(halves,)).images[0]
    assert len(np.unique(soft)) > 2
    hard = build(
        Task.INSERTION,
        conditional_images=(halves,),
        reference_image=noise(30, 30),
        reference_mask=flat(30, 30, 255),
    ).shown["mask_A"]
    assert (hard == MASK).all()


def test_the_shadow_hint_darkens_the_background_and_expands_the_mask() -> None:
    shadow = cast_shadow(MASK)
    expanded, background = expand_mask(MASK, shadow), cut(darken(IMAGE, MASK, shadow), MASK)
    hinted = build(Task.INSERTION, shadow_hint=True, reference_image=IMAGE)
    assert same(hinted.images, [IMAGE, as_rgb(expanded), background])
    assert (hinted.source == IMAGE).all()
    two_source = build(
        Task.INSERTION, shadow_hint=True, reference_image=IMAGE, reference_mask=as_rgb(MASK)
    )
    assert two_source.composite_mask is not None
    assert two_source.composite_mask.sum() > MASK.sum()
    assert same(two_source.images[1:2], [as_rgb(two_source.composite_mask)])


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION, Task.WHITE_BALANCE])
def test_the_hint_is_for_insertions_with_a_reference_only(task: Task) -> None:
    assert same(build(task, shadow_hint=True).images, list(build(task).images))


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("quality", InputQuality)
def test_the_smallest_pictures_work(
    task: Task, size: tuple[int, int], quality: InputQuality
) -> None:
    conditions = build(
        task,
        image=flat(*size, 50),
        conditional_images=(flat(2, 2, 255), flat(1, 1, 0)),
        reference_image=flat(1, 1, 9),
        input_quality=quality,
    )
    assert {image.shape for image in conditions.images} == {conditions.source.shape}


def test_a_strip_is_refused_unpadded() -> None:
    with pytest.raises(CodedError, match="IMAGE: 1x500 is more elongated"):
        build(Task.WHITE_BALANCE, image=flat(1, 500, 0))
