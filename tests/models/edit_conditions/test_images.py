import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from edit_conditions.images import Pixels, decode_image, encode_png, resize
from model_kit.errors import CodedError

from .pictures import encode, flat, noise


def test_a_picture_is_decoded() -> None:
    pixels = noise(7, 5)
    decoded = decode_image(encode(pixels), "IMAGE", 35)
    assert decoded.dtype == np.uint8
    assert (decoded == pixels).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encode(noise(60, 60))[:1000], "Invalid image data or unsupported format: "),
        (encode(flat(101, 100, 0)), "101x100 is more than the 10000 pixels allowed"),
    ],
)
def test_a_picture_that_is_refused_is_named(data: bytes, said: str) -> None:
    with pytest.raises(CodedError) as caught:
        decode_image(data, "CONDITIONAL_IMAGES[2]", 10_000)
    text = str(caught.value)
    assert text.startswith(f"[INVALID_ARGUMENT] CONDITIONAL_IMAGES[2]: {said}")


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
