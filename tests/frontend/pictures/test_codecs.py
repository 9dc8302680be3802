from __future__ import annotations

import base64
import functools
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from frontend.errors import IMAGE_REFUSED, InvalidInputError
from frontend.pictures import codecs
from frontend.pictures.codecs import image_format
from model_kit import raster
from model_kit.image_bounds import FORMATS
from model_kit.pictures import decode, decode_rgb
from tests.fakes.pictures import b64, encoded, png
from tests.fakes.profiles import profile

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 10_000

MODES = {"PNG": "RGBA", "JPEG": "RGB", "WEBP": "RGBA", "BMP": "RGB", "GIF": "P", "TIFF": "L"}


def read(text: str) -> bytes:
    """Return the file that is kept of a picture, once it has been decoded."""
    _, (file,) = codecs.picture(text.encode(), "field", MAX_PIXELS, keep=True)
    assert isinstance(file, bytes)
    return file


def joined(parts: list[raster.Buffer]) -> bytes:
    return b"".join(map(bytes, parts))


@pytest.mark.parametrize("image_type", FORMATS)
def test_every_format_is_passed_on_as_it_came(image_type: str) -> None:
    data = encoded(image_type, mode=MODES[image_type])
    assert read(b64(data)) == data
    assert image_format(data) == image_type.lower()


def test_a_jpeg_of_several_pictures_is_a_jpeg() -> None:
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert image_format(buffer.getvalue()) == "jpeg"


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", ""])
def test_plain_base64_and_data_urls(prefix: str) -> None:
    assert read(prefix + b64(png())) == png()


def test_broken_lines_are_joined() -> None:
    text = b64(png())
    assert read(f"{text[:40]}\r\n{text[40:]}\n") == png()


def test_an_error_tells_neither_addresses_nor_paths() -> None:
    for data in (b"", b"hello", png()[:50], encoded("TIFF")[:100]):
        with pytest.raises(InvalidInputError) as caught:
            read(b64(data))
        assert caught.value.detail.startswith("field: Invalid base64 image data or unsupported")
        assert "0x" not in caught.value.detail


def test_the_same_text_has_the_same_digest() -> None:
    one, other = codecs.digest("QUJD"), codecs.digest("QUJE")
    assert one == codecs.digest("QUJD") != other
    assert len(one) == 32


def test_a_picture_becomes_plain_pixels() -> None:
    shades = pixels(0, 7, 9, 4)
    ((*parts,),) = codecs.picture(written(shades).encode(), "field", MAX_PIXELS, keep=False)
    colours, alpha, profile = raster.read(joined(parts), MAX_PIXELS)
    assert (colours == shades[..., :3]).all()
    assert alpha is not None
    assert (alpha == shades[..., 3]).all()
    assert profile is None


def test_a_mask_becomes_what_it_means() -> None:
    shades = pixels(0, 7, 9)
    ((*parts,),) = codecs.mask(written(shades).encode(), "field", MAX_PIXELS)
    assert (raster.read(joined(parts), MAX_PIXELS)[0] == shades).all()


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", ""])
def test_a_file_is_passed_on_unseen(prefix: str) -> None:
    assert codecs.file(f"{prefix}QU\nJD".encode(), "mask") == [b"ABC"]


def test_what_is_shown_of_a_file_is_opaque_srgb() -> None:
    data = base64.b64decode(written(pixels(0, 7, 9, 4)))
    [shown] = codecs.shown(data, MAX_PIXELS)
    colours, alpha, _ = raster.read(joined(shown), MAX_PIXELS)
    assert (colours == decode_rgb(data, MAX_PIXELS)).all()
    assert alpha is None


def test_plain_pixels_are_no_file() -> None:
    plain = b64(joined(raster.write(pixels(0, 7, 9, 3))))
    with pytest.raises(InvalidInputError, match="not a PNG, JPEG"):
        read(plain)


@pytest.mark.parametrize("text", ["????", "QUJ", "ảnh", "\ud800", "QUJD=A"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    sent = text.encode(errors="surrogatepass")
    with pytest.raises(InvalidInputError, match=r"^Failed to cache image: not base64 \("):
        codecs.file(sent, IMAGE_REFUSED)
    with pytest.raises(InvalidInputError, match=r"^mask: Invalid base64 .*: not base64 \("):
        codecs.file(sent, "mask")
    for function in (codecs.mask, functools.partial(codecs.picture, keep=False)):
        with pytest.raises(InvalidInputError, match=r"^field: Invalid base64 .*: not base64 \("):
            function(sent, "field", MAX_PIXELS)


def pixels(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def written(picture: Pixels, image_type: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, image_type, **options)
    return b64(buffer.getvalue())


def extract(image: str, mask: str) -> Pixels:
    png, *_ = codecs.extract(image.encode(), mask.encode(), MAX_PIXELS)
    with Image.open(io.BytesIO(png)) as cut:
        assert (cut.format, cut.mode) == ("PNG", "RGBA")
        return np.asarray(cut)


WHITE = written(np.full((1, 1), 255, np.uint8))


def test_alpha_is_the_mask_and_colours_stay() -> None:
    picture, mask = pixels(0, 7, 9, 3), pixels(1, 7, 9)
    cut = extract(written(picture), written(mask))
    assert (cut == np.dstack([picture, mask])).all()


def test_a_mask_of_another_size_is_stretched_without_blur() -> None:
    mask = np.array([[255, 0], [60, 200]], np.uint8)
    cut = extract(written(pixels(0, 8, 6, 3)), written(mask))
    assert (cut[..., 3] == np.kron(mask, np.ones((4, 3), np.uint8))).all()


def test_a_coloured_mask_is_set_where_it_is_not_black() -> None:
    mask = np.array([[[255, 0, 0], [0, 0, 0], [0, 90, 0]]], np.uint8)
    cut = extract(written(pixels(0, 1, 3, 3)), written(mask))
    assert cut[..., 3].tolist() == [[255, 0, 255]]


# mflux-community/mflux#722: who cuts out twice expects what was see-through to stay so.
def test_what_was_see_through_stays_so() -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[..., 0] = 255
    image[20:40, 20:40] = (0, 0, 255, 255)
    cut = extract(written(image), written(np.full((64, 64), 255, np.uint8)))
    assert cut[2, 2, 3] == 0
    assert cut[30, 30].tolist() == [0, 0, 255, 255]


def corner(side: int, rest: int = 0) -> Pixels:
    """Return a mask whose upper left quarter is set."""
    mask = np.full((side, side), rest, np.uint8)
    mask[: side // 2, : side // 2] = 255
    return mask


# Of the last, only the faint edge lies on what can be seen.
@pytest.mark.parametrize("mask", [corner(64), corner(4), corner(64, rest=100)])
def test_a_mask_of_what_is_see_through_has_no_object(mask: Pixels) -> None:
    image = pixels(0, 64, 64, 4)
    image[..., 3] = 255 - corner(64)
    with pytest.raises(InvalidInputError, match=r"^mask: covers only transparent parts of the "):
        extract(written(image), written(mask))
    image[5, 5, 3] = 1
    assert extract(written(image), written(mask))[5, 5, 3] == 1


# cgwire/zou#1188: a CMYK profile must not be left in an RGBA picture.
def test_a_cut_out_says_that_it_is_srgb() -> None:
    buffer = io.BytesIO()
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    red.save(buffer, "JPEG", quality=95, icc_profile=profile(space=b"CMYK"))
    [data] = codecs.extract(
        b64(buffer.getvalue()).encode(),
        written(np.full((64, 64), 255, np.uint8)).encode(),
        MAX_PIXELS,
    )
    with Image.open(io.BytesIO(data)) as cut:
        cut.load()
        assert "icc_profile" not in cut.info
        assert cut.info["srgb"] == 0
        assert np.abs(np.asarray(cut)[20, 20].astype(int) - (255, 0, 0, 255)).max() <= 4


# xhtml2pdf/xhtml2pdf#409: data URLs as RFC 2397 allows them.
@pytest.mark.parametrize(
    "form",
    [
        "data:image/png;base64,{}",
        "DATA:image/png;base64,{}",
        "DATA:IMAGE/PNG;BASE64,{}",
        "data:image/png; base64,{}",
        " \n data:image/png;base64,{} \n",
        'data:image/png;name="a,b.png";base64,{}',
        "data:;charset=utf-8;base64,{}",
        "{}",
    ],
)
def test_every_form_of_a_data_url_is_read(form: str) -> None:
    data = written(pixels(0, 4, 4, 3))
    assert read(form.format(data)) == base64.b64decode(data)


@pytest.mark.parametrize("text", ["data:image/png,abc", "data:", "data:;base64"])
def test_a_data_url_of_another_encoding_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not base64"):
        read(text)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_and_mask_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = written(pixels(0, 5, 3, 3), exif=exif)
    mask = written(pixels(1, 5, 3), exif=exif)
    cut = extract(image, mask)
    assert (cut[..., :3] == decode_rgb(base64.b64decode(image), 100)).all()
    assert (cut[..., 3] == decode_rgb(base64.b64decode(mask), 100)[..., 0]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"])
def test_colours_are_those_that_the_models_see(mode: str) -> None:
    if mode.startswith("I;16"):
        deep = (pixels(0, 6, 6).astype(np.uint16) * 255) + 77
        drawn = Image.frombytes(mode, (6, 6), deep.astype(">u2" if mode[-1] == "B" else "<u2"))
    else:
        drawn = Image.fromarray(pixels(0, 6, 6, 4)).convert(mode)
    buffer = io.BytesIO()
    drawn.save(buffer, "TIFF" if mode in ("CMYK", "I;16B") else "PNG")
    cut = extract(b64(buffer.getvalue()), WHITE)
    seen = decode(buffer.getvalue(), 100)
    assert (cut[..., :3] == seen.in_srgb()).all()
    assert (cut[..., 3] == (255 if seen.alpha is None else seen.alpha)).all()


@pytest.mark.parametrize("value", [0, 100, 127])
def test_an_empty_mask_has_no_object(value: int) -> None:
    mask = written(np.full((4, 4), value, np.uint8))
    with pytest.raises(InvalidInputError) as caught:
        extract(written(pixels(0, 4, 4, 3)), mask)
    assert caught.value.detail.startswith("No object found in mask (no white pixels)")


def test_a_mask_of_which_the_picture_s_size_leaves_nothing_has_no_object() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[1, 1] = 255
    with pytest.raises(InvalidInputError, match=r"^No object found .* nothing .* at 4x4 pixels"):
        extract(written(pixels(0, 4, 4, 3)), written(mask))


def test_one_bright_pixel_is_an_object() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[3, 2] = 129
    assert (extract(written(pixels(0, 4, 4, 3)), written(mask)))[3, 2, 3] == 129


@pytest.mark.parametrize(("size", "shown"), [((3000, 1500), (2560, 1280)), ((20, 10), (20, 10))])
def test_a_picture_for_display_is_capped(size: tuple[int, int], shown: tuple[int, int]) -> None:
    data, media_type = codecs.webp(png(size))
    assert media_type == "image/webp"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", shown)


def test_png_is_sent_where_webp_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "WEBP_QUALITY", 1000)
    assert codecs.webp(png()) == (png(), "image/png")
