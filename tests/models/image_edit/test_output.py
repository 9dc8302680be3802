import io

import numpy as np
import pytest
from PIL import Image

from image_edit.output import encode_png, finish

from .edits import conditions_of, picture


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    generated = picture(64, 48)
    assert finish(generated, (64, 48), conditions_of()) is generated


def test_any_other_is_brought_to_the_exact_size() -> None:
    generated = picture(64, 48)
    expected = Image.fromarray(generated).resize((301, 263), Image.Resampling.LANCZOS)
    assert (finish(generated, (301, 263), conditions_of()) == np.asarray(expected)).all()


def test_two_sources_are_blended_by_the_soft_mask() -> None:
    source = np.full((1, 3, 3), 200, np.uint8)
    generated = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 51, 255]], np.uint8)
    blend = finish(generated, (3, 1), conditions_of(source=source, composite_mask=mask))
    assert blend[0, :, 0].tolist() == [200, 180, 100]


def test_outside_the_mask_every_pixel_of_the_input_stays() -> None:
    source, generated = picture(64, 64, seed=1), picture(64, 64, seed=2)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    blend = finish(generated, (64, 64), conditions_of(source=source, composite_mask=mask))
    assert (blend[mask == 0] == source[mask == 0]).all()
    assert (blend[mask == 255] == generated[mask == 255]).all()


def test_the_composite_is_made_at_the_size_of_the_output() -> None:
    source = picture(64, 64, seed=1)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    conditions = conditions_of(source=source, composite_mask=mask)
    blend = finish(picture(128, 96, seed=2), (130, 100), conditions)
    assert blend.shape == (100, 130, 3)
    enlarged = np.asarray(Image.fromarray(source).resize((130, 100), Image.Resampling.LANCZOS))
    assert (blend[:, :50] == enlarged[:, :50]).all()


@pytest.mark.parametrize("size", [(1, 1), (64, 48)])
def test_png_is_lossless_and_rgb(size: tuple[int, int]) -> None:
    pixels = picture(*size)
    decoded = Image.open(io.BytesIO(encode_png(pixels)))
    assert decoded.format == "PNG"
    assert decoded.mode == "RGB"
    assert (np.asarray(decoded) == pixels).all()
