import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from edit_conditions.images import Pixels, encode_png, read_mask, read_picture, resize
from edit_conditions.masks import as_rgb
from model_kit.errors import CodedError

from .pictures import encode, flat, mask_with, noise


def test_a_picture_is_decoded() -> None:
    pixels = noise(7, 5)
    decoded = read_picture(encode(pixels), "IMAGE", 35)
    assert decoded.native.dtype == np.uint8
    assert (decoded.native == pixels).all()
    assert decoded.alpha is None
    assert decoded.profile is None


def test_a_mask_is_decoded_by_what_it_means() -> None:
    hard = mask_with(7, 5, (2, 1, 3, 2))
    strokes = np.dstack([np.full((5, 7, 3), 255, np.uint8), hard])
    for picture in (hard, as_rgb(hard), strokes):
        decoded = read_mask(encode(picture), "REFERENCE_MASK_R", 35)
        assert decoded.dtype == np.uint8
        assert (decoded == hard).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encode(noise(60, 60))[:1000], "Invalid image data or unsupported format: "),
        (encode(flat(101, 100, 0)), "101x100 is more than the 10000 pixels allowed"),
    ],
)
def test_a_picture_that_is_refused_is_named(data: bytes, said: str) -> None:
    for read in (read_picture, read_mask):
        with pytest.raises(CodedError) as caught:
            read(data, "CONDITIONAL_IMAGE_2", 10_000)
        text = str(caught.value)
        assert text.startswith(f"[INVALID_ARGUMENT] CONDITIONAL_IMAGE_2: {said}")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (flat(9, 9, 127), "No object found in mask (no white pixels): its brightest pixel is 127"),
        (np.zeros((9, 9, 4), np.uint8), "No object found in mask (no white pixels): it is transp"),
        (noise(90, 90), "the mask looks like a photograph"),
    ],
    ids=["dark", "transparent", "photograph"],
)
def test_a_mask_of_nothing_or_of_two_meanings_is_refused(pixels: Pixels, said: str) -> None:
    with pytest.raises(CodedError) as caught:
        read_mask(encode(pixels), "CONDITIONAL_IMAGE_0", 10_000)
    assert str(caught.value).startswith(f"[INVALID_ARGUMENT] CONDITIONAL_IMAGE_0: {said}")


def test_resize_takes_width_before_height_and_leaves_a_fitting_picture_alone() -> None:
    pixels = noise(4, 6)
    assert resize(pixels, (4, 6), Resampling.LANCZOS) is pixels
    assert resize(pixels, (8, 3), Resampling.LANCZOS).shape == (3, 8, 3)
    assert resize(pixels[:, :, 0].copy(), (2, 3), Resampling.NEAREST).shape == (3, 2)


@pytest.mark.parametrize("pixels", [noise(9, 5), noise(9, 5)[:, :, 0].copy()])
def test_encode_png_round_trips(pixels: Pixels) -> None:
    picture = Image.open(BytesIO(base64.b64decode(encode_png(pixels), validate=True)))
    assert picture.format == "PNG"
    assert (np.asarray(picture) == pixels).all()
