import math
from typing import Any

import numpy as np
import pytest
from PIL.Image import Resampling

from edit_conditions.edges import canny
from edit_conditions.fill import telea
from edit_conditions.flows import SceneConditions, build_conditions
from edit_conditions.images import Pixels, resize
from edit_conditions.masks import Box, as_rgb, object_box
from edit_conditions.plan import Scene, plan
from edit_conditions.quality import InputQuality
from edit_conditions.request import MaskTool
from edit_conditions.shadow import cast_shadow, darken, expand_mask
from edit_conditions.task import Task

from .pictures import edit, flat, mask_with, noise

IMAGE = noise(100, 80)
MASK = mask_with(100, 80, (40, 20, 30, 30))
SMALL_AREA = 8 * 100 * 80
"""Of a model that sees IMAGE as it is; one of fewer pixels is enlarged."""


def seen(
    task: Task,
    image: Pixels = IMAGE,
    mask: Pixels = MASK,
    shadow_hint: bool = False,
    **changes: Any,
) -> tuple[Scene, SceneConditions]:
    """Return the one scene of an edit, and its conditions."""
    request = edit(task, image, mask, **{"image_area": SMALL_AREA, **changes})
    [scene] = plan(request, shadow_hint).scenes
    return scene, build_conditions(request, scene, telea, shadow_hint)


def build(
    task: Task, image: Pixels = IMAGE, mask: Pixels = MASK, **changes: Any
) -> SceneConditions:
    return seen(task, image, mask, **changes)[1]


def cut(image: Pixels, mask: Pixels) -> Pixels:
    """Return the picture without the pixels of a hard mask."""
    return np.where(mask[:, :, None] > 0, np.uint8(0), image)


def same(actual: tuple[Pixels, ...], expected: list[Pixels]) -> bool:
    return len(actual) == len(expected) and all(
        a.dtype == np.uint8 and a.shape == b.shape and (a == b).all()
        for a, b in zip(actual, expected, strict=True)
    )


def test_removal() -> None:
    scene, conditions = seen(Task.REMOVAL)
    fill = telea(IMAGE, MASK)
    assert same(conditions.images, [cut(IMAGE, MASK), as_rgb(MASK), fill])
    assert list(conditions.shown) == ["original", "mask", "mae"]
    assert same(tuple(conditions.shown.values()), [IMAGE, MASK, fill])
    assert (scene.source == IMAGE).all()
    assert scene.positioned is None
    assert conditions.derived_masks == {}


def test_removal_shows_the_original_as_the_model_sees_it() -> None:
    quality = InputQuality.RESIZED
    scene, conditions = seen(Task.REMOVAL, input_quality=quality, image_area=512 * 512)
    assert conditions.shown["original"] is scene.source
    # 100x80 fills the square of 512 without its padding.
    assert scene.source.shape == conditions.images[0].shape == (409, 512, 3)


@pytest.mark.parametrize("mask_tool", [None, MaskTool.BOX])
def test_only_a_brush_mask_grows_before_the_fill(mask_tool: MaskTool | None) -> None:
    small = mask_with(200, 200, (90, 90, 20, 20))
    image = noise(200, 200)
    plain = build(Task.REMOVAL, image, small, mask_tool=mask_tool)
    brush = build(Task.REMOVAL, image, small, mask_tool=MaskTool.BRUSH)
    assert plain.derived_masks == {}
    grown = brush.derived_masks["mask_mae_dilated"]
    assert object_box(grown) == Box(55, 55, 90, 90)
    changed = (brush.images[2] != image).any(axis=2)
    assert changed.sum() > 0.9 * (grown > 0).sum()
    assert not changed[grown == 0].any()
    assert (plain.images[2][small == 0] == image[small == 0]).all()
    # The mask that the model sees is the user's either way.
    assert same(brush.images[:2], list(plain.images[:2]))


def test_a_brush_grows_less_where_the_model_sees_the_picture_smaller() -> None:
    image, mask = noise(800, 800), mask_with(800, 800, (380, 380, 40, 40))
    conditions = build(Task.REMOVAL, image, mask, mask_tool=MaskTool.BRUSH, image_area=400 * 400)
    # 20 pixels at half the size, and 35 / 2 on each side.
    assert object_box(conditions.derived_masks["mask_mae_dilated"]) == Box(172, 172, 56, 56)


def test_the_fill_takes_the_soft_mask_above_127() -> None:
    soft = np.full((80, 100), 127, dtype=np.uint8)
    soft[30:40, 30:40] = 128
    changed = (build(Task.REMOVAL, mask=soft).images[2] != IMAGE).any(2)
    assert object_box(changed.astype(np.uint8) * 255) == Box(30, 30, 10, 10)


# xulihang/ImageTrans-docs#1001, lllyasviel/Fooocus#462: the object itself becomes the fill
def test_a_mask_of_everything_hands_no_object_back() -> None:
    background, _, fill = build(Task.REMOVAL, mask=np.full_like(MASK, 255)).images
    assert not background.any()
    assert np.ptp(fill) == 0


@pytest.mark.parametrize("box", [(1001, 1003, 1, 1), (0, 1003, 2048, 1), (1001, 1003, 9, 9)])
def test_an_object_that_shrinks_is_in_the_mask_and_not_in_the_fill(
    box: tuple[int, int, int, int],
) -> None:
    left, top, width, height = box
    image = flat(2048, 2048, 60)
    image[top : top + height, left : left + width] = 255
    mask = mask_with(2048, 2048, box)
    background, shown, fill = build(Task.REMOVAL, image, mask, image_area=256 * 256).images
    assert shown.shape == (256, 256, 3)
    assert fill.max() < 75  # what LANCZOS rings beside it is known
    rows, columns = np.nonzero(shown[..., 0] > 127)
    assert abs(rows.mean() * 8 + 4 - (top + height / 2)) <= 8
    assert abs(columns.mean() * 8 + 4 - (left + width / 2)) <= 8
    if height == 1:
        assert background.max() < 65  # the speck is masked


def test_the_shadow_hint_shrinks_with_its_picture() -> None:
    large, small = noise(400, 400), noise(100, 100)
    found = [
        build(
            Task.INSERTION,
            image,
            mask_with(side, side, (side // 4, side // 4, side // 2, side // 4)),
            shadow_hint=True,
            reference_image=small,
            image_area=100 * 100,
        ).images[1][..., 0]
        for image, side in ((large, 400), (small, 100))
    ]
    spans = [np.flatnonzero((mask > 127).any(axis=0)) for mask in found]
    # Three pixels of the larger picture are one of what the model sees of it.
    assert (spans[0][0], spans[0][-1]) == (24, 76)
    assert (spans[1][0], spans[1][-1]) == (22, 80)


def test_insertion_without_reference() -> None:
    conditions = build(Task.INSERTION)
    assert same(conditions.images, [as_rgb(MASK), cut(IMAGE, MASK)])
    assert list(conditions.shown) == ["mask", "masked_bg"]
    assert conditions.derived_masks == {}


def test_insertion_with_reference_stretches_it() -> None:
    reference = noise(37, 53)
    conditions = build(Task.INSERTION, reference_image=reference)
    stretched = resize(reference, (100, 80), Resampling.LANCZOS)
    assert same(conditions.images, [stretched, as_rgb(MASK), cut(IMAGE, MASK)])
    assert list(conditions.shown) == ["ref_img", "mask", "masked_bg"]
    assert conditions.derived_masks == {}


def test_two_source_insertion() -> None:
    reference = noise(60, 60)
    reference_mask = mask_with(60, 60, (20, 20, 20, 20))
    scene, conditions = seen(
        Task.INSERTION, reference_image=reference, reference_mask=reference_mask
    )
    stretched = resize(reference, (100, 80), Resampling.LANCZOS)
    positioned = scene.positioned
    assert positioned is not None
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
    scene, conditions = seen(
        Task.INSERTION, reference_image=noise(60, 60), reference_mask=reference_mask
    )
    assert scene.positioned is not None
    assert object_box(scene.positioned) == Box(40, 20, 30, 30)
    # The debug picture cuts the object out of the reference at the same place.
    assert (conditions.shown["masked_R"][:20] == 255).all()
    assert (conditions.shown["masked_R"][20:40, 20:40] != 255).any()


@pytest.mark.parametrize("reference", [None, noise(30, 30)])
def test_more_conditional_images_are_stretched_and_appended(reference: Pixels | None) -> None:
    extras = (noise(10, 30, seed=1), noise(200, 20, seed=2))
    stretched = [resize(extra, (100, 80), Resampling.LANCZOS) for extra in extras]
    for task in (Task.REMOVAL, Task.INSERTION):
        conditions = build(task, extra_images=extras, reference_image=reference)
        assert same(conditions.images[-2:], stretched)
        assert list(conditions.shown)[-2:] == ["extra_1", "extra_2"]
        assert len(conditions.shown) == len(conditions.images)


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION])
def test_more_conditional_images_show_what_their_region_shows(task: Task) -> None:
    large = noise(200, 160)
    for extra in (IMAGE, large):
        changes: dict[str, Any] = {"region": (30, 10, 90, 70), "image_area": 8 * 60 * 60}
        box = build(task, extra_images=(extra,), **changes).images[-1]
        part = extra[10 * len(extra) // 80 : 70 * len(extra) // 80]
        part = part[:, 30 * extra.shape[1] // 100 : 90 * extra.shape[1] // 100]
        expected = resize(part, (60, 60), Resampling.LANCZOS)
        # Beside the part, what lies there counts too.
        assert np.abs(box[3:-3, 3:-3].astype(int) - expected[3:-3, 3:-3]).max() <= 1


def test_more_conditional_images_do_not_reach_the_other_flows() -> None:
    extras = (noise(10, 30), noise(30, 10))
    two_source = build(
        Task.INSERTION,
        extra_images=extras,
        reference_image=noise(9, 9),
        reference_mask=mask_with(9, 9, (0, 0, 9, 9)),
    )
    assert len(two_source.images) == 3
    assert len(build(Task.WHITE_BALANCE, extra_images=extras).images) == 2


def test_white_balance() -> None:
    scene, conditions = seen(Task.WHITE_BALANCE)
    edges = as_rgb(canny(IMAGE))
    assert same(conditions.images, [IMAGE, edges])
    assert list(conditions.shown) == ["input", "canny"]
    assert scene.mask is None


def test_mask_and_input_share_their_geometry_whatever_their_sizes() -> None:
    image = flat(400, 200, 255)
    for scale in (0.5, 1, 4):
        width, height = int(400 * scale), int(200 * scale)
        mask = mask_with(width, height, (width // 4, height // 4, width // 2, height // 2))
        quality = InputQuality.RESIZED
        conditions = build(Task.INSERTION, image, mask, input_quality=quality, image_area=512 * 512)
        # The picture has 512x256 pixels in the square of 512.
        assert conditions.images[0].shape == (256, 512, 3)
        assert object_box(conditions.images[0][:, :, 0].copy()) == Box(128, 64, 256, 128)
        assert conditions.images[1][128, 256].tolist() == [0, 0, 0]


def test_the_reference_is_not_padded() -> None:
    conditions = build(
        Task.INSERTION,
        reference_image=flat(20, 10, 255),
        input_quality=InputQuality.RESIZED,
    )
    assert (conditions.images[0] == 255).all()


def test_masks_are_resized_softly_except_for_two_sources() -> None:
    halves = mask_with(10, 8, (4, 2, 3, 3))
    soft = build(Task.INSERTION, mask=halves).images[0]
    assert len(np.unique(soft)) > 2
    hard = build(
        Task.INSERTION,
        mask=halves,
        reference_image=noise(30, 30),
        reference_mask=mask_with(30, 30, (0, 0, 30, 30)),
    ).shown["mask_A"]
    assert (hard == MASK).all()


def test_the_shadow_hint_darkens_the_background_and_expands_the_mask() -> None:
    shadow = cast_shadow(MASK)
    expanded, background = expand_mask(MASK, shadow), cut(darken(IMAGE, MASK, shadow), MASK)
    scene, hinted = seen(Task.INSERTION, shadow_hint=True, reference_image=IMAGE)
    assert same(hinted.images, [IMAGE, as_rgb(expanded), background])
    assert (scene.source == IMAGE).all()
    scene, two_source = seen(
        Task.INSERTION, shadow_hint=True, reference_image=IMAGE, reference_mask=MASK
    )
    positioned = two_source.derived_masks["positioned_mask_R"]
    assert scene.positioned is not None
    assert positioned.sum() > scene.positioned.sum()
    assert same(two_source.images[1:2], [as_rgb(positioned)])


def test_a_shadow_on_a_part_of_few_pixels_is_not_enlarged_as_the_part_is() -> None:
    # Its last column lies beside the mask.
    part = (68, 30, 71, 33)
    _, shown, _ = build(
        Task.INSERTION,
        shadow_hint=True,
        region=part,
        reference_image=IMAGE,
        image_area=1024 * 1024,
    ).images
    assert shown.shape == (362, 362, 3)
    assert (shown[:, :240] > 127).all()
    # The whole mask is 100 times as large, and its shadow but 8 times.
    assert (shown[:, -40:] < 128).all()


@pytest.mark.parametrize("size", [(24, 24), (48, 32), (64, 64)])
def test_the_object_of_a_small_picture_does_not_colour_its_fill(size: tuple[int, int]) -> None:
    width, height = size
    mask = mask_with(width, height, (width // 3, height // 3, width // 3, height // 3))
    image = np.where(mask[..., np.newaxis] > 0, flat(*size, (220, 30, 30)), flat(*size, 110))
    scene, conditions = seen(Task.REMOVAL, image, mask, image_area=512 * 512)
    assert math.prod(scene.source.shape[:2]) == pytest.approx(512 * 512 / 8, rel=0.01)
    fill = conditions.images[2]
    assert scene.hole is not None
    # What LANCZOS rings beside the object is known.
    assert np.abs(fill.astype(int) - 110)[scene.hole > 0].max() < 35


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION, Task.WHITE_BALANCE])
def test_the_hint_is_for_insertions_with_a_reference_only(task: Task) -> None:
    assert same(build(task, shadow_hint=True).images, list(build(task).images))


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("quality", InputQuality)
def test_the_smallest_pictures_work(
    task: Task, size: tuple[int, int], quality: InputQuality
) -> None:
    scene, conditions = seen(
        task,
        flat(*size, 50),
        mask_with(2, 2, (0, 0, 2, 2)),
        extra_images=(flat(1, 1, 0),),
        reference_image=flat(1, 1, 9),
        input_quality=quality,
    )
    assert {image.shape for image in conditions.images} == {scene.source.shape}
