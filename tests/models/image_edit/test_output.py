import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_edit.colours import linear_of, srgb_of
from image_edit.conditions import Box, Conditions, Pixels
from image_edit.output import encode_png, finish
from model_kit.colour import from_srgb, to_srgb
from model_kit.pictures import Picture
from tests.fakes.profiles import ADOBE_RGB, DISPLAY_P3, Primaries, profile

from .edits import conditions_of, picture, region_of

SIZE = (64, 48)
SOURCE = picture(*SIZE, seed=1)


def hole(left: int = 20, top: int = 10, width: int = 20, height: int = 20) -> Pixels:
    mask = np.zeros((48, 64), np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask


def of(source: Pixels, **changes: Any) -> Conditions:
    size = source.shape[1], source.shape[0]
    given = {"picture": source, "regions": (region_of(source),), "size": size, **changes}
    return conditions_of(**given)


def stretched(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def test_a_whole_edit_is_the_generated_frame_without_its_padding() -> None:
    canvas = picture(64, 64, seed=2)
    assert (finish([canvas], of(SOURCE)) == canvas[:48]).all()


def test_any_edit_is_brought_to_the_exact_size() -> None:
    canvas = picture(64, 64, seed=2)
    found = finish([canvas], of(SOURCE, size=(301, 263)))
    assert (found == stretched(canvas[:48], (301, 263))).all()


def test_a_composite_is_blended_by_its_soft_mask() -> None:
    source = np.full((1, 3, 3), 200, np.uint8)
    mask = np.array([[0, 51, 255]], np.uint8)
    conditions = of(source, regions=(region_of(source, paste_mask=mask),), composited=True)
    blend = finish([np.full((32, 32, 3), 100, np.uint8)], conditions)
    assert blend[0, :, 0].tolist() == [200, 180, 100]


def test_outside_the_mask_every_pixel_of_the_input_stays() -> None:
    canvas, mask = picture(64, 64, seed=2), hole()
    conditions = of(SOURCE, regions=(region_of(SOURCE, paste_mask=mask),), composited=True)
    blend = finish([canvas], conditions)
    assert (blend[mask == 0] == SOURCE[mask == 0]).all()
    assert (blend[mask == 255] == canvas[:48][mask == 255]).all()


def test_a_crop_goes_back_to_its_place_at_the_picture_s_resolution() -> None:
    source = picture(200, 160, seed=1)
    box = Box(50, 40, 96, 80)
    mask = np.zeros((80, 96), np.uint8)
    mask[30:50, 30:60] = 255
    region = region_of(content=(48, 40), box=box, paste_mask=mask)
    canvas = picture(64, 64, seed=2)
    found = finish([canvas], of(source, regions=(region,), composited=True))
    changed = (found != source).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), columns.min()) >= (70, 80)
    assert (rows.max(), columns.max()) <= (89, 109)
    enlarged = stretched(canvas[:40, :48], (96, 80))
    assert (found[70:90, 80:110] == enlarged[30:50, 30:60]).all()


def test_several_crops_go_each_to_its_own_place() -> None:
    source = np.zeros((64, 200, 3), np.uint8)
    full = np.full((40, 40), 255, np.uint8)
    regions = tuple(
        region_of(content=(40, 40), box=Box(left, 10, 40, 40), paste_mask=full) for left in (0, 150)
    )
    canvases = [np.full((64, 64, 3), shade, np.uint8) for shade in (50, 90)]
    found = finish(canvases, of(source, regions=regions, composited=True))
    assert (found[20, 20, 0], found[20, 100, 0], found[20, 170, 0]) == (50, 0, 90)


def test_a_padded_picture_is_returned_in_the_middle_of_black() -> None:
    canvas = picture(64, 64, seed=2)
    found = finish([canvas], of(SOURCE, square=128, size=(128, 128)))
    assert (found[40:88, 32:96] == canvas[:48]).all()
    found[40:88, 32:96] = 0
    assert not found.any()


def test_a_white_balance_of_a_smaller_copy_keeps_the_picture_s_detail() -> None:
    noise = np.random.default_rng(0).integers(40, 200, (96, 128, 3), np.uint8)
    small = stretched(noise, (64, 48))
    light = np.diag([0.8, 1.0, 1.3]).astype(np.float32)
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[:48] = small
    generated = srgb_of(linear_of(canvas) @ light)
    region = region_of(noise, content=(64, 48), images=np.stack([canvas, canvas]))
    conditions = of(noise, regions=(region,), task_type="white-balance")
    found = finish([generated], conditions)
    right = srgb_of(linear_of(noise) @ light)
    assert np.abs(found.astype(int) - right).mean() < 2


def white_balance_of(source: Pixels, drawn: Pixels | None = None, **changes: Any) -> Pixels:
    """Edit with a model that draws what it is given, or what it saw; shown at half the size."""
    colour_profile = changes.get("profile")
    alpha = source[..., 3] if source.shape[2] == 4 else None
    box = changes.pop("box", Box(0, 0, source.shape[1], source.shape[0]))
    content = box.width // 2, box.height // 2

    def canvas(colours: Pixels) -> Pixels:
        shown = Picture(colours[..., :3], alpha, colour_profile).shown()
        return stretched(shown[box.window], content)

    seen = canvas(source)
    region = region_of(source, box=box, content=content, images=np.stack([seen, seen]))
    conditions = of(source, regions=(region,), task_type="white-balance", in_place=True, **changes)
    return finish([seen if drawn is None else canvas(drawn)], conditions)


@pytest.mark.parametrize("box", [Box(0, 0, 64, 48), Box(10, 8, 40, 32)])
@pytest.mark.parametrize("alpha", [None, 255, 90])
@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB])
def test_a_white_balance_of_nothing_keeps_what_srgb_cannot_show(
    primaries: Primaries, alpha: int | None, box: Box
) -> None:
    vivid = SOURCE.copy()
    vivid[:24, :, 0] = np.arange(64)
    vivid[:24, :, 1:] = (235, 40)
    wide = profile(primaries)
    shown = from_srgb(to_srgb(vivid, wide), wide)
    assert np.abs(shown.astype(int) - vivid)[:24].max() > 25
    source = vivid if alpha is None else np.dstack([vivid, np.full((48, 64), alpha, np.uint8)])
    assert np.array_equal(white_balance_of(source, profile=wide, box=box), source)


@pytest.mark.parametrize("primaries", [None, DISPLAY_P3, ADOBE_RGB])
def test_a_white_balance_is_right_in_any_profile(primaries: Primaries | None) -> None:
    wide = None if primaries is None else profile(primaries)
    light = np.diag([1.0, 0.75, 0.45]).astype(np.float32)
    daylight = picture(*SIZE, seed=3) // np.uint8(2) + np.uint8(40)
    pair = daylight, srgb_of(linear_of(daylight) @ light)
    right, warm = (each if wide is None else from_srgb(each, wide) for each in pair)
    found = white_balance_of(warm, right, profile=wide)
    assert np.abs(warm.astype(int) - right).mean() > 10
    assert np.abs(found.astype(int) - right).mean() < 1.5


def test_a_white_balance_of_a_cut_out_is_that_of_what_shows() -> None:
    light = np.diag([1.0, 0.75, 0.45]).astype(np.float32)
    right = picture(*SIZE, seed=3) // np.uint8(2) + np.uint8(40)
    alpha = np.zeros((48, 64), np.uint8)
    alpha[10:30, 20:40] = 255
    source = np.dstack([srgb_of(linear_of(right) @ light), alpha])
    found = white_balance_of(source, right)
    assert np.array_equal(found[..., 3], alpha)
    assert np.abs(found[..., :3].astype(int) - right)[alpha > 0].mean() < 1


def test_untouched_pixels_keep_the_picture_s_profile_and_new_ones_take_it() -> None:
    p3, mask = profile(), hole()
    region = region_of(SOURCE, paste_mask=mask)
    conditions = of(SOURCE, regions=(region,), composited=True, profile=p3)
    red = np.full((64, 64, 3), (200, 60, 40), np.uint8)
    found = finish([red], conditions)
    assert (found[mask == 0] == SOURCE[mask == 0]).all()
    shown = to_srgb(found, p3)[mask == 255]
    assert np.abs(shown.astype(int) - (200, 60, 40)).max() <= 2


@pytest.mark.parametrize("task_type", ["removal", "insertion"])
def test_what_is_transparent_stays_so_unless_something_is_inserted(task_type: str) -> None:
    mask = hole()
    see_through = np.dstack([SOURCE, np.full((48, 64), 0, np.uint8)])
    region = region_of(SOURCE, paste_mask=mask)
    conditions = of(see_through, regions=(region,), composited=True, task_type=task_type)
    found = finish([picture(64, 64, seed=2)], conditions)
    assert (found[mask == 0] == see_through[mask == 0]).all()
    assert set(found[mask == 255][:, 3]) == {255 if task_type == "insertion" else 0}


@pytest.mark.parametrize("alpha", [0, 1, 40, 100, 200, 254, 255])
def test_a_model_that_redraws_what_it_saw_changes_nothing_that_shows(alpha: int) -> None:
    see_through = np.dstack([SOURCE, np.full((48, 64), alpha, np.uint8)])
    on_white = Picture(SOURCE, see_through[..., 3], None).shown()
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[:48] = on_white
    region = region_of(SOURCE, paste_mask=hole())
    found = finish([canvas], of(see_through, regions=(region,), composited=True))
    assert (found[..., 3] == alpha).all()
    shown = Picture(found[..., :3], found[..., 3], None).shown()
    assert np.abs(shown.astype(int) - on_white).max() <= 1


def test_the_soft_edge_of_what_is_inserted_takes_no_hidden_colour() -> None:
    hidden_black = np.zeros((1, 3, 4), np.uint8)
    opaque_black = np.dstack([hidden_black[..., :3], np.full((1, 3), 255, np.uint8)])
    mask = np.array([[0, 128, 255]], np.uint8)
    red = np.full((32, 32, 3), (200, 0, 0), np.uint8)
    found = {}
    for name, source in (("hidden", hidden_black), ("opaque", opaque_black)):
        region = region_of(source, paste_mask=mask)
        of_it = of(source, regions=(region,), composited=True, task_type="insertion")
        found[name] = finish([red], of_it)[0, :, [0, 3]].T.tolist()
    assert found["hidden"] == [[0, 0], [200, 128], [200, 255]]
    assert found["opaque"] == [[0, 255], [100, 255], [200, 255]]


@pytest.mark.parametrize("size", [(1, 1), (64, 48)])
def test_png_is_lossless_and_says_srgb(size: tuple[int, int]) -> None:
    pixels = picture(*size)
    decoded = Image.open(io.BytesIO(encode_png(pixels, None)))
    assert decoded.format == "PNG"
    assert decoded.mode == "RGB"
    assert (np.asarray(decoded) == pixels).all()
    assert decoded.info["srgb"] == 0


def test_png_carries_a_profile_and_transparency() -> None:
    pixels = np.dstack([SOURCE, hole()])
    decoded = Image.open(io.BytesIO(encode_png(pixels, profile())))
    assert (np.asarray(decoded) == pixels).all()
    assert decoded.info["icc_profile"] == profile()
