"""What of a picture an edit works on, at what size, and where the result may change it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edit_conditions.images import Pixels, size_of
from edit_conditions.masks import Box, dilate, object_box, region_boxes
from edit_conditions.plan import BRUSH_RADIUS, FEATHER, MIN_FEATHER, EditPlan, plan
from edit_conditions.quality import InputQuality
from edit_conditions.regions import GRID, canvas_of
from edit_conditions.request import MaskTool
from edit_conditions.shadow import cast_shadow, expand_mask
from edit_conditions.task import Task
from model_kit.errors import CodedError
from model_kit.pictures import Picture
from tests.fakes.profiles import profile

from .pictures import edit, flat, mask_with, noise

AREA = 512 * 512
ODD = [(301, 207), (233, 347), (1024, 51), (51, 1024)]
TINY = [(33, 47), (48, 32), (64, 64), (5, 3)]
"""Too few pixels for a model of AREA."""


def planned(
    task: Task,
    image: Pixels,
    mask: Pixels | None = None,
    shadow_hint: bool = False,
    **changes: Any,
) -> EditPlan:
    return plan(edit(task, image, mask, **{"image_area": AREA, **changes}), shadow_hint)


def mask_in(image: Pixels) -> Pixels:
    """Return a mask of the middle third."""
    width, height = size_of(image)
    return mask_with(width, height, (width // 3, height // 3, width // 3, height // 3))


def one(pasted: tuple[Pixels, ...] | None) -> Pixels:
    assert pasted is not None
    [mask] = pasted
    return mask


def box_of(mask: Pixels | None) -> Box:
    assert mask is not None
    box = object_box(mask)
    assert box is not None
    return box


def has_aspect(found: tuple[int, int], aspect: tuple[int, int]) -> bool:
    """Whether the shorter side fits the longer one, to a pixel."""
    longer = int(aspect[1] > aspect[0])
    shorter = 1 - longer
    return abs(found[shorter] - found[longer] * aspect[shorter] / aspect[longer]) <= 1


def reach(box: Box) -> int:
    """Pixels from the hole at which the result has surely ended."""
    return max(MIN_FEATHER, round(FEATHER * max(box.width, box.height))) + 1


# --- full ---


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("task", Task)
def test_full_works_on_the_whole_picture_at_its_own_size(task: Task, size: tuple[int, int]) -> None:
    image = noise(*size)
    found = planned(task, image, mask_in(image))
    [region], [scene] = found.regions, found.scenes
    assert region.box == Box(0, 0, *size)
    assert region.content == size
    assert (found.picture == image).all()
    assert (scene.source == image).all()
    assert found.square is None
    assert not found.in_place
    assert not found.composited  # existing clients get what the model made
    assert (found.paste_masks is None) == (task is Task.WHITE_BALANCE)
    assert (scene.mask is None) == (task is Task.WHITE_BALANCE)


@pytest.mark.parametrize(
    ("size", "content", "square"),
    [
        ((300, 160), (512, 273), 512),
        ((301, 207), (512, 352), 512),
        ((33, 47), (359, 512), 512),
        ((700, 1000), (716, 1024), 1024),
    ],
)
def test_resized_fills_a_square_whose_padding_the_model_does_not_see(
    size: tuple[int, int], content: tuple[int, int], square: int
) -> None:
    image = noise(*size)
    found = planned(
        Task.REMOVAL,
        image,
        mask_in(image),
        input_quality=InputQuality.RESIZED,
        image_area=1024 * 1024,
    )
    assert found.square == square
    assert found.regions[0].content == size_of(found.picture) == content
    assert found.scenes[0].source.any(axis=2).all(axis=1).any()
    assert not found.composited


def test_a_hairline_is_refused_in_its_own_size_only() -> None:
    with pytest.raises(CodedError, match="IMAGE: 1x500 is more elongated than 100:1"):
        planned(Task.WHITE_BALANCE, flat(1, 500, 0))
    found = planned(Task.WHITE_BALANCE, flat(1, 500, 0), input_quality=InputQuality.RESIZED)
    assert found.regions[0].content == (1, 512)


def test_a_picture_larger_than_the_model_was_made_for_is_worked_on_smaller() -> None:
    image = flat(2048, 1024, 80)
    mask = mask_with(2048, 1024, (800, 400, 300, 200))
    found = planned(Task.REMOVAL, image, mask)
    [region], [scene] = found.regions, found.scenes
    assert region.content == size_of(scene.source) == (724, 362)
    assert size_of(found.picture) == (2048, 1024)
    # What was generated smaller goes into the picture's own pixels, inside the feather alone.
    assert found.composited
    pasted = one(found.paste_masks)
    assert (pasted[mask > 0] == 255).all()
    assert not pasted[dilate(mask, reach(region.box)) == 0].any()
    assert not planned(Task.WHITE_BALANCE, image).composited
    assert planned(Task.WHITE_BALANCE, image).regions[0].content == (724, 362)


@pytest.mark.parametrize("size", ODD)
def test_a_larger_answer_is_worked_on_larger_with_the_picture_s_aspect(
    size: tuple[int, int],
) -> None:
    image = noise(*size)
    width, height = size
    for factor in (1.5, 2, 2.37):
        asked = round(width * factor), round(height * factor)
        found = planned(
            Task.REMOVAL,
            image,
            mask_in(image),
            width=asked[0],
            height=asked[1],
            image_area=800 * 800,
        )
        assert math.prod(size_of(found.picture)) == pytest.approx(math.prod(asked), rel=0.02)
        assert has_aspect(size_of(found.picture), size)
        assert found.regions[0].content == size_of(found.picture)
        assert not found.composited


@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("region", ["full", "auto", None])
@pytest.mark.parametrize("task", Task)
def test_a_picture_too_small_for_the_model_is_worked_on_larger(
    task: Task, region: Any, size: tuple[int, int]
) -> None:
    image = noise(*size)
    mask = mask_in(image)
    found = planned(task, image, mask, region=region or (0, 0, *size))
    [seen], [scene] = found.regions, found.scenes
    assert seen.box == Box(0, 0, *size)
    assert math.prod(seen.content) == pytest.approx(AREA / 8, rel=0.02)
    assert has_aspect(seen.content, size)
    assert size_of(scene.source) == seen.content
    # All else is the picture's own.
    assert (found.picture == image).all()
    assert found.size == size
    masked = task is not Task.WHITE_BALANCE
    # In `full` existing clients get what the model made: reduced, it is as sharp as the picture.
    assert found.composited == (region != "full" and (masked or region is None))
    assert (found.paste_masks is not None) == masked
    if found.paste_masks is not None:
        assert size_of(one(found.paste_masks)) == size
        assert (one(found.paste_masks)[mask > 0] == 255).all()
        assert scene.mask is not None
        assert scene.hole is not None
        enlarged = np.asarray(Image.fromarray(mask).resize(seen.content, Image.Resampling.NEAREST))
        assert (scene.hole[enlarged > 0] == 255).all()
        reached = dilate(enlarged, math.ceil(seen.scale))
        assert not scene.hole[reached == 0].any()
        # The mask that the model is shown does not grow.
        close = dilate(enlarged, math.ceil(seen.scale / 4))
        assert not (scene.mask > 127)[close == 0].any()


def test_a_larger_answer_than_the_model_was_made_for_is_composited() -> None:
    image = noise(256, 256)
    found = planned(Task.REMOVAL, image, mask_in(image), width=2048, height=2048)
    assert size_of(found.picture) == (2048, 2048)
    assert found.regions[0].content == (512, 512)
    assert found.composited


@pytest.mark.parametrize("size", [(602, 414), (1024, 151)])
def test_a_smaller_answer_is_worked_on_smaller(size: tuple[int, int]) -> None:
    image = noise(*size)
    found = planned(Task.REMOVAL, image, mask_in(image), width=size[0] // 2, height=size[1] // 2)
    assert size_of(found.picture) == size
    content = found.regions[0].content
    assert math.prod(content) == pytest.approx(math.prod(side // 2 for side in size), rel=0.02)
    assert has_aspect(content, size)
    assert found.composited


def test_an_answer_of_another_aspect_keeps_the_picture_s_aspect_for_the_model() -> None:
    image = noise(400, 200)
    found = planned(Task.WHITE_BALANCE, image, width=200, height=400)
    assert found.regions[0].content == (400, 200)  # as many pixels as are asked
    one_side = planned(Task.WHITE_BALANCE, image, width=200)
    assert math.prod(one_side.regions[0].content) == pytest.approx(200 * 200, rel=0.01)
    assert found.regions[0].box == one_side.regions[0].box == Box(0, 0, 400, 200)


@pytest.mark.parametrize(
    ("asked", "content", "square"),
    [(512, (512, 341), 512), (384, (384, 256), 512), (1024, (1024, 682), 1024)],
)
def test_a_padded_answer_of_another_size_counts_its_padding(
    asked: int, content: tuple[int, int], square: int
) -> None:
    image = noise(300, 200)
    found = planned(
        Task.INSERTION,
        image,
        mask_in(image),
        input_quality=InputQuality.RESIZED,
        width=asked,
        height=asked,
        image_area=850 * 850,
    )
    assert found.square == square
    assert np.abs(np.subtract(found.regions[0].content, content)).max() <= 1
    # The picture has to fit its square.
    assert max(size_of(found.picture)) == square


# vllm-project/vllm-omni#1265, #7283: explicit width and height of another aspect
@pytest.mark.parametrize("region", ["full", "auto", (0, 0, 250, 180)])
@pytest.mark.parametrize(
    ("quality", "frame"), [(InputQuality.ORIGINAL, (300, 200)), (InputQuality.RESIZED, (512, 512))]
)
@pytest.mark.parametrize("asked", [{}, {"width": 1024}, {"height": 700}, {"width": 256}])
def test_the_answer_has_the_size_that_was_asked_and_else_its_own(
    region: Any, quality: InputQuality, frame: tuple[int, int], asked: dict[str, Any]
) -> None:
    image = noise(300, 200)
    found = planned(
        Task.REMOVAL, image, mask_in(image), region=region, input_quality=quality, **asked
    )
    width, height = frame if region == "full" else (300, 200)
    assert found.size == (asked.get("width", width), asked.get("height", height))


# --- auto ---


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION])
def test_auto_works_on_a_crop_around_the_mask_in_the_picture_as_sent(task: Task) -> None:
    image = noise(2000, 1500)
    mask = mask_with(2000, 1500, (900, 700, 120, 90))
    found = planned(task, image, mask, region="auto", input_quality=InputQuality.RESIZED)
    [region], [scene] = found.regions, found.scenes
    assert region.content == (512, 512) == (region.box.width, region.box.height)
    assert (found.picture == image).all()
    assert (scene.source == image[region.box.window]).all()
    assert scene.mask is not None
    assert (scene.mask == mask[region.box.window]).all()
    assert found.composited
    assert found.in_place
    assert found.square is None
    pasted = one(found.paste_masks)
    hole = mask[region.box.window]
    assert (pasted[hole > 0] == 255).all()
    assert not pasted[dilate(hole, reach(region.box)) == 0].any()
    assert ((pasted > 0) & (pasted < 255)).any()


@pytest.mark.parametrize("size", ODD)
def test_auto_takes_pictures_of_odd_sizes(size: tuple[int, int]) -> None:
    image = noise(*size)
    mask = mask_in(image)
    found = planned(Task.REMOVAL, image, mask, region="auto")
    [region], [scene] = found.regions, found.scenes
    assert region.content == (region.box.width, region.box.height)
    side = max(512, 2 * max(size) // 3)  # the mask has a third of it
    assert region.content == (min(side, size[0]), min(side, size[1]))
    assert (scene.source == image[region.box.window]).all()
    assert one(found.paste_masks).shape == scene.source.shape[:2]
    assert all(side % GRID == 0 for side in canvas_of(found.regions))


def test_auto_gives_objects_far_apart_a_crop_each_that_pastes_its_own_alone() -> None:
    image = flat(3000, 2000, 90)
    mask = mask_with(3000, 2000, (100, 100, 60, 40), (2800, 1800, 50, 70))
    found = planned(Task.REMOVAL, image, mask, region="auto")
    assert len(found.regions) == len(found.scenes) == 2
    assert found.paste_masks is not None
    whole = np.zeros_like(mask)
    for region, pasted in zip(found.regions, found.paste_masks, strict=True):
        assert pasted.shape == (region.box.height, region.box.width)
        assert (pasted == 255).any()
        whole[region.box.window] = np.maximum(whole[region.box.window], pasted)
    assert (whole[mask > 0] == 255).all()
    assert not whole[dilate(mask, reach(found.regions[0].box)) == 0].any()


def test_auto_pastes_all_that_a_brush_mask_grows_over() -> None:
    image = flat(1500, 1500, 90)
    mask = mask_with(1500, 1500, (700, 700, 60, 60))
    brush, box = (
        planned(Task.REMOVAL, image, mask, region="auto", mask_tool=tool)
        for tool in (MaskTool.BRUSH, MaskTool.BOX)
    )
    [region], [scene] = brush.regions, brush.scenes
    grown = dilate(mask, BRUSH_RADIUS)[region.box.window]
    assert (one(brush.paste_masks)[grown > 0] == 255).all()
    assert scene.hole is not None
    assert (scene.hole == grown).all()
    assert scene.mask is not None
    assert object_box(scene.mask) == Box(226, 226, 60, 60)  # the model sees the user's mask
    assert box_of(box.scenes[0].hole) == Box(226, 226, 60, 60)
    assert one(box.paste_masks).sum() < one(brush.paste_masks).sum()


def test_a_brush_grows_with_the_scale_of_its_crop() -> None:
    image = flat(4000, 4000, 90)
    mask = mask_with(4000, 4000, (1000, 1000, 1000, 1000))
    found = planned(Task.REMOVAL, image, mask, region="auto", mask_tool=MaskTool.BRUSH)
    [region], [scene] = found.regions, found.scenes
    assert region.content == (512, 512)
    assert region.box.width == 2 * (1000 + 2 * BRUSH_RADIUS)
    grown = (1000 + 2 * BRUSH_RADIUS) * 512 / region.box.width
    assert grown <= box_of(scene.hole).width <= grown + 2
    insertion = planned(Task.INSERTION, image, mask, region="auto", mask_tool=MaskTool.BRUSH)
    assert box_of(insertion.scenes[0].hole).width == 256


def test_auto_at_the_picture_s_edge_pastes_up_to_the_edge() -> None:
    image = flat(1500, 1200, 90)
    mask = mask_with(1500, 1200, (1400, 1100, 100, 100))
    found = planned(Task.REMOVAL, image, mask, region="auto")
    [region] = found.regions
    assert region.box == Box(1500 - 512, 1200 - 512, 512, 512)
    assert (one(found.paste_masks)[-100:, -100:] == 255).all()


def test_auto_keeps_what_a_file_holds_and_shows_the_model_what_a_browser_shows() -> None:
    native, alpha = noise(300, 200), mask_with(300, 200, (0, 0, 150, 200))
    p3 = profile()
    picture = Picture(native, alpha, p3)
    mask = mask_with(300, 200, (100, 50, 100, 100))
    found = planned(Task.REMOVAL, native, mask, picture=picture, region="auto")
    assert (found.picture == np.dstack([native, alpha])).all()
    assert found.profile == p3
    assert (found.scenes[0].source == picture.shown()).all()
    full = planned(Task.REMOVAL, native, mask, picture=picture)
    assert (full.picture == picture.shown()).all()
    assert full.profile is None


@pytest.mark.parametrize(
    ("task", "region", "refusal"),
    [
        (Task.REMOVAL, "auto", "CONDITIONAL_IMAGE_0: covers only transparent parts"),
        (Task.REMOVAL, (80, 40, 200, 160), "CONDITIONAL_IMAGE_0: covers only transparent parts"),
        (Task.WHITE_BALANCE, (80, 40, 200, 160), "REGION: is transparent everywhere"),
        (Task.WHITE_BALANCE, "auto", None),
        (Task.INSERTION, "auto", None),  # draws where nothing was
        (Task.REMOVAL, "full", None),  # of what is shown, on white
    ],
)
def test_an_edit_of_which_nothing_could_be_seen_is_refused(
    task: Task, region: Any, refusal: str | None
) -> None:
    native, alpha = noise(300, 200), mask_with(300, 200, (250, 0, 50, 200))
    mask = mask_with(300, 200, (100, 50, 60, 60))

    def found(**changes: Any) -> EditPlan:
        picture = Picture(native, alpha, None)
        return planned(task, native, mask, picture=picture, region=region, **changes)

    if refusal is None:
        assert found().regions
        return
    with pytest.raises(CodedError, match=refusal):
        found()
    alpha[60, 110] = 1
    assert found().regions


def test_a_brush_that_reaches_what_can_be_seen_edits_it() -> None:
    native, alpha = noise(300, 200), mask_with(300, 200, (175, 0, 125, 200))
    mask = mask_with(300, 200, (100, 50, 60, 60))

    def found(tool: MaskTool) -> EditPlan:
        picture = Picture(native, alpha, None)
        return planned(Task.REMOVAL, native, mask, picture=picture, region="auto", mask_tool=tool)

    assert found(MaskTool.BRUSH).regions
    with pytest.raises(CodedError, match="covers only transparent parts"):
        found(MaskTool.BOX)


def test_auto_of_a_picture_that_is_transparent_everywhere_is_refused() -> None:
    picture = Picture(noise(90, 60), mask_with(90, 60), None)
    with pytest.raises(CodedError, match="IMAGE: is transparent everywhere"):
        planned(Task.WHITE_BALANCE, picture.native, picture=picture, region="auto")


def test_auto_gives_white_balance_the_whole_picture() -> None:
    image = flat(2048, 1024, 80)
    found = planned(Task.WHITE_BALANCE, image, region="auto", input_quality=InputQuality.RESIZED)
    [region], [scene] = found.regions, found.scenes
    assert region.box == Box(0, 0, 2048, 1024)
    assert region.content == size_of(scene.source) == (724, 362)
    assert found.paste_masks is None
    assert found.in_place
    assert not found.composited
    assert found.square is None
    assert size_of(found.picture) == (2048, 1024)


def test_auto_takes_a_crop_of_an_elongated_picture_but_not_all_of_it() -> None:
    image = flat(6000, 50, 80)
    [region] = planned(
        Task.REMOVAL, image, mask_with(6000, 50, (3000, 20, 9, 9)), region="auto"
    ).regions
    assert (region.box.width, region.box.height) == (512, 50)
    for task in (Task.REMOVAL, Task.WHITE_BALANCE):
        with pytest.raises(CodedError, match="IMAGE: 6000x50 is more elongated than 100:1"):
            planned(task, image, mask_with(6000, 50, (0, 20, 6000, 9)), region="auto")


def test_with_the_shadow_hint_auto_pastes_the_shadow_too() -> None:
    image = flat(1500, 1500, 90)
    mask = mask_with(1500, 1500, (700, 700, 60, 60))
    reference = flat(30, 30, 10)
    plain, hinted, described = (
        planned(Task.INSERTION, image, mask, hint, region="auto", reference_image=picture)
        for hint, picture in ((False, reference), (True, reference), (True, None))
    )
    assert object_box(one(plain.paste_masks)) == object_box(one(described.paste_masks))
    found = [object_box(one(each.paste_masks)) for each in (plain, hinted)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].width > found[0].width
    assert found[1].height > found[0].height


# --- two sources ---


@pytest.mark.parametrize("choice", ["full", "auto"])
def test_a_two_source_edit_pastes_the_placed_object_alone(choice: str) -> None:
    image = noise(400, 300)
    mask = mask_with(400, 300, (150, 100, 60, 60), (320, 200, 40, 40))
    found = planned(
        Task.INSERTION,
        image,
        mask,
        region=choice,
        reference_image=noise(60, 60),
        reference_mask=mask_with(60, 60, (20, 25, 20, 10)),
    )
    [region], [scene] = found.regions, found.scenes
    assert region.box == Box(0, 0, 400, 300)
    assert found.composited
    assert found.in_place == (choice == "auto")
    assert scene.positioned is not None
    assert (one(found.paste_masks) == scene.positioned).all()
    # Mask R's object is twice as wide as high, and fits each region's width.
    placed = region_boxes(scene.positioned, 1)
    assert placed == [Box(150, 115, 60, 30), Box(320, 210, 40, 20)]
    assert scene.mask is not None
    assert (scene.mask == mask).all()


def test_all_regions_of_a_two_source_edit_lie_in_one_crop() -> None:
    image = flat(3000, 2000, 90)
    mask = mask_with(3000, 2000, (100, 100, 60, 60), (2800, 1800, 60, 60))
    found = planned(
        Task.INSERTION,
        image,
        mask,
        region="auto",
        reference_image=flat(60, 60, 10),
        reference_mask=mask_with(60, 60, (20, 20, 20, 20)),
    )
    [region] = found.regions
    pasted = np.zeros_like(mask)
    pasted[region.box.window] = one(found.paste_masks)
    assert (pasted[100:160, 100:160] > 127).any()
    assert (pasted[1800:1860, 2800:2860] > 127).any()


# Its object lies in a corner.
OFF_CENTRE: dict[str, Any] = {
    "reference_image": flat(100, 100, 10),
    "reference_mask": mask_with(100, 100, (0, 0, 10, 10)),
}


@pytest.mark.parametrize("asked", ["auto", (1300, 1300, 2000, 2000)])
def test_an_object_lies_in_the_middle_of_mask_a_unless_existing_clients_ask(asked: Any) -> None:
    image = flat(2000, 2000, 90)
    mask = mask_with(2000, 2000, inside := (1490, 1490, 60, 60))
    found = planned(Task.INSERTION, image, mask, region=asked, **OFF_CENTRE)
    [region] = found.regions
    pasted = np.zeros_like(mask)
    pasted[region.box.window] = one(found.paste_masks)
    assert object_box(pasted) == inside
    full = planned(Task.INSERTION, image, mask, image_area=2000 * 2000, **OFF_CENTRE)
    # All of mask R, whose middle lies on that of mask A.
    assert object_box(one(full.paste_masks)) == (1220, 1220, 60, 60)


def test_a_box_beside_the_placed_object_is_refused() -> None:
    mask = mask_with(2000, 2000, (1490, 1490, 60, 60))
    with pytest.raises(CodedError, match="REGION: holds nothing of the mask"):
        planned(Task.INSERTION, flat(2000, 2000, 90), mask, region=(0, 0, 1400, 1400), **OFF_CENTRE)


# --- a box ---


def test_a_box_is_the_part_that_is_worked_on() -> None:
    image = noise(1200, 900)
    mask = mask_with(1200, 900, (300, 300, 400, 100))
    found = planned(Task.REMOVAL, image, mask, region=(200, 250, 600, 650))
    [region], [scene] = found.regions, found.scenes
    assert region.box == Box(200, 250, 400, 400)
    assert region.content == (400, 400)
    assert (scene.source == image[250:650, 200:600]).all()
    assert (found.picture == image).all()
    assert found.composited
    assert found.in_place
    pasted = one(found.paste_masks)
    assert (pasted[60:140, 110:380] == 255).all()
    # The mask goes on to the right of the box: the result fades out before the box ends.
    assert not pasted[:, -1].any()
    assert (np.diff(pasted[100, -7:].astype(int)) < 0).all()


def test_a_box_without_a_mask_fades_at_its_edges_inside_the_picture() -> None:
    found = planned(Task.WHITE_BALANCE, noise(1200, 900), region=(0, 250, 600, 900))
    pasted = one(found.paste_masks)
    assert pasted.shape == (650, 600)
    assert not pasted[0].any()
    assert not pasted[:, -1].any()
    assert (pasted[100:, :500] == 255).all()  # the left and the lower edge are the picture's
    assert found.composited


def test_a_box_of_the_whole_picture_needs_no_fading() -> None:
    found = planned(Task.WHITE_BALANCE, noise(300, 200), region=(0, 0, 300, 200))
    assert found.paste_masks is None
    assert found.in_place
    assert found.regions[0].content == (300, 200)


def test_a_large_box_is_worked_on_at_the_model_s_size() -> None:
    found = planned(Task.WHITE_BALANCE, flat(3000, 3000, 9), region=(500, 500, 2548, 1524))
    assert found.regions[0].content == size_of(found.scenes[0].source) == (724, 362)


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (0, 0, 4, 5), (299, 0, 300, 3), (100, 100, 109, 104)]
)
def test_the_smallest_boxes_work(box: tuple[int, int, int, int]) -> None:
    image = noise(300, 200)
    found = planned(Task.INSERTION, image, np.full((200, 300), 255, np.uint8), region=box)
    size = box[2] - box[0], box[3] - box[1]
    assert has_aspect(found.regions[0].content, size)
    assert one(found.paste_masks).shape == (box[3] - box[1], box[2] - box[0])


@given(
    left=st.integers(1, 500),
    top=st.integers(1, 500),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    task=st.sampled_from(Task),
)
@settings(deadline=None)
def test_half_of_a_narrow_box_at_least_is_edited_whole(
    left: int, top: int, width: int, height: int, task: Task
) -> None:
    image = flat(600, 600, 9)
    box = (left, top, left + width, top + height)
    pasted = one(planned(task, image, np.full((600, 600), 255, np.uint8), region=box).paste_masks)
    whole = pasted == 255
    assert whole.any(axis=1).sum() >= height / 2
    assert whole.any(axis=0).sum() >= width / 2


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 10, 10),
        (0, -1, 10, 10),
        (0, 0, 301, 10),
        (0, 0, 10, 201),
        (10, 0, 10, 10),
        (0, 10, 10, 10),
        (20, 0, 10, 10),
        (300, 0, 310, 10),
        (0, 0, 10**30, 10),
    ],
)
def test_a_box_outside_the_picture_is_refused_with_its_size(box: tuple[int, ...]) -> None:
    with pytest.raises(CodedError) as caught:
        planned(Task.WHITE_BALANCE, noise(300, 200), region=box)
    assert str(caught.value) == (
        f"[INVALID_ARGUMENT] REGION: {list(box)} does not lie inside the picture of 300x200"
    )


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION])
def test_a_box_with_none_of_the_mask_is_refused(task: Task) -> None:
    image, mask = noise(300, 200), mask_with(300, 200, (200, 100, 50, 50))
    with pytest.raises(CodedError, match="REGION: holds nothing of the mask"):
        planned(task, image, mask, region=(0, 0, 200, 200))
    planned(task, image, mask, region=(0, 0, 205, 200))


@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION])
def test_a_box_that_holds_the_mask_where_an_edit_fades_out_is_refused(task: Task) -> None:
    image, mask = noise(300, 200), mask_with(300, 200, (200, 100, 50, 50))
    with pytest.raises(CodedError, match="REGION: holds the mask at its edge alone"):
        planned(task, image, mask, region=(0, 0, 201, 200))


def test_a_brush_beside_a_box_brings_nothing_into_it() -> None:
    image, mask = noise(300, 200), mask_with(300, 200, (200, 100, 50, 50))
    with pytest.raises(CodedError, match="REGION: holds nothing of the mask"):
        planned(Task.REMOVAL, image, mask, region=(0, 0, 190, 200), mask_tool=MaskTool.BRUSH)


def test_what_a_brush_pastes_into_a_box_is_what_was_filled() -> None:
    image = noise(300, 200)
    # One stroke in the box, and one beside it whose object's rim reaches into it.
    mask = mask_with(300, 200, (40, 100, 30, 30), (205, 40, 30, 30))
    found = planned(Task.REMOVAL, image, mask, region=(0, 0, 200, 200), mask_tool=MaskTool.BRUSH)
    [scene] = found.scenes
    assert scene.hole is not None
    assert scene.hole[55, 180] == 255
    assert (scene.hole[one(found.paste_masks) == 255] == 255).all()


def test_a_shadow_beside_a_box_brings_nothing_into_it() -> None:
    image, reference = noise(300, 200), noise(50, 50)
    mask = mask_with(300, 200, (100, 40, 50, 50))
    box = (60, 90, 300, 200)
    assert cast_shadow(mask)[90:].any()
    with pytest.raises(CodedError, match="REGION: holds nothing of the mask"):
        planned(Task.INSERTION, image, mask, True, region=box, reference_image=reference)


@pytest.mark.parametrize("two_source", [False, True])
def test_what_is_pasted_into_a_box_is_what_the_model_was_shown(two_source: bool) -> None:
    image, reference = noise(300, 200), noise(50, 50)
    mask = mask_with(300, 200, (60, 20, 60, 60), (160, 20, 60, 60))
    found = planned(
        Task.INSERTION,
        image,
        mask,
        True,
        region=(140, 0, 300, 200),
        image_area=256 * 256,
        reference_image=reference,
        reference_mask=np.full((50, 50), 255, np.uint8) if two_source else None,
    )
    [scene] = found.scenes
    shown = scene.positioned if two_source else scene.mask
    assert shown is not None
    assert shown[:, 20:80].any()
    shown = expand_mask(shown, cast_shadow(shown))
    near = dilate(np.where(shown > 127, shown, 0).astype(np.uint8), MIN_FEATHER + 1)
    assert not one(found.paste_masks)[near == 0].any()


def test_an_elongated_box_is_refused_by_its_name() -> None:
    with pytest.raises(CodedError, match="REGION: 300x2 is more elongated than 100:1"):
        planned(Task.WHITE_BALANCE, noise(300, 200), region=(0, 0, 300, 2))


# --- masks ---


@pytest.mark.parametrize("choice", ["full", "auto", (0, 0, 300, 200)])
def test_a_mask_of_another_size_covers_the_same_part(choice: Any) -> None:
    image = noise(300, 200)
    masks = [mask_with(300 * n // 2, 100 * n, (60 * n, 20 * n, 30 * n, 40 * n)) for n in (1, 2, 4)]
    for mask in masks:
        pasted = one(planned(Task.REMOVAL, image, mask, region=choice).paste_masks)
        assert object_box(np.where(pasted == 255, pasted, 0).astype(np.uint8)) == Box(
            120, 40, 60, 80
        )


@pytest.mark.parametrize("choice", ["full", "auto", (0, 0, 33, 47)])
@pytest.mark.parametrize("task", [Task.REMOVAL, Task.INSERTION])
def test_a_mask_that_vanishes_at_the_picture_s_size_is_refused(task: Task, choice: Any) -> None:
    speck = mask_with(3300, 4700, (1000, 1000, 3, 3))
    with pytest.raises(
        CodedError,
        match=r"CONDITIONAL_IMAGE_0: nothing of the mask is left at 33x47 pixels",
    ):
        planned(task, noise(33, 47), speck, region=choice)


def test_a_mask_that_vanishes_in_the_resized_picture_is_refused() -> None:
    dot = mask_with(4000, 3000, (1001, 1001, 1, 1))
    quality = InputQuality.RESIZED
    with pytest.raises(CodedError, match="nothing of the mask is left at 2048x1536 pixels"):
        planned(Task.REMOVAL, flat(4000, 3000, 5), dot, input_quality=quality)
    [region] = planned(Task.REMOVAL, flat(4000, 3000, 5), dot, region="auto").regions
    assert region.scale == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nothing_far_from_the_object_is_ever_pasted(data: st.DataObject) -> None:
    width, height = (data.draw(st.integers(20, 900)) for _ in range(2))
    boxes = []
    for _ in range(data.draw(st.integers(1, 3))):
        left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        wide = data.draw(st.integers(1, width - left))
        boxes.append((left, top, wide, data.draw(st.integers(1, height - top))))
    mask = mask_with(width, height, *boxes)
    area = data.draw(st.sampled_from([128 * 128, 256 * 256, AREA]))
    found = planned(Task.REMOVAL, flat(width, height, 7), mask, region="auto", image_area=area)
    assert found.paste_masks is not None
    pasted = np.zeros_like(mask)
    for region, own in zip(found.regions, found.paste_masks, strict=True):
        pasted[region.box.window] = np.maximum(pasted[region.box.window], own)
    assert (pasted[mask > 0] == 255).all()
    farthest = max(reach(region.box) for region in found.regions)
    assert not pasted[dilate(mask, farthest) == 0].any()
