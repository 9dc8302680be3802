from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFilter

from model_kit.masks import MaskError, read_mask

SIDE = 256
SQUARE = (90, 90, 166, 166)
Mask = npt.NDArray[np.uint8]


def canvas(mode: str, background: object, fill: object) -> Image.Image:
    picture = Image.new(mode, (SIDE, SIDE), background)  # type: ignore[arg-type]
    ImageDraw.Draw(picture).rectangle(SQUARE, fill=fill)  # type: ignore[arg-type]
    return picture


def meant(picture: Image.Image) -> Mask:
    return read_mask(np.asarray(picture.convert("RGBA" if "A" in picture.mode else "RGB")))


def with_hole(background: object, seed: int | None = None) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), background)  # type: ignore[arg-type]
    if seed is not None:
        rough = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        picture = Image.fromarray(rough).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ImageDraw.Draw(picture).ellipse((100, 100, 156, 156), fill=(220, 30, 30))
    picture.putalpha(canvas("L", 255, 0))
    return picture


def on_canvas(colour: tuple[int, ...], mark: tuple[int, ...]) -> Image.Image:
    """Return a picture of one mark on plain ground, with see-through margins."""
    side = SIDE // 2
    shown = Image.new("RGB", (side, side), colour)
    ImageDraw.Draw(shown).ellipse((50, 50, 74, 74), fill=mark)
    grain = np.random.default_rng(0).integers(-6, 7, (side, side, 3))
    shown = Image.fromarray((np.asarray(shown) + grain).clip(0, 255).astype(np.uint8))
    picture = Image.new("RGBA", (SIDE, SIDE))
    picture.paste(shown, (64, 64))
    return picture


def sticker() -> Image.Image:
    picture = Image.new("RGBA", (SIDE, SIDE))
    ImageDraw.Draw(picture).ellipse((20, 20, 236, 236), fill=(250, 210, 40, 255))
    ImageDraw.Draw(picture).rectangle((60, 60, 200, 90), fill=(240, 240, 240, 255))
    ImageDraw.Draw(picture).rectangle(SQUARE, fill=(0, 0, 0, 0))
    return picture


def strokes(*colours: tuple[int, ...], width: int = 20) -> Image.Image:
    picture = Image.new("RGBA", (SIDE, SIDE))
    for number, colour in enumerate(colours):
        line = (60, 60 + 40 * number, 180, 90 + 40 * number)
        ImageDraw.Draw(picture).line(line, fill=colour, width=width)
    return picture


RIGHT = np.asarray(canvas("L", 0, 255)) > 127


@pytest.mark.parametrize(
    "mask",
    [
        # Mikubill/sd-webui-controlnet#3079: what canvas.toDataURL() gives.
        canvas("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)),
        canvas("RGBA", (255, 255, 255, 0), (255, 255, 255, 200)),
        canvas("RGBA", (0, 0, 0, 0), (220, 220, 220, 255)),
        canvas("RGBA", (0, 0, 0, 0), (255, 0, 0, 128)),
        canvas("RGBA", (0, 0, 0, 0), (80, 220, 40, 255)),
        canvas("LA", (255, 0), (255, 255)),
        # OpenAI's clients: stdapi-ai/stdapi.ai#75 and others.
        canvas("RGBA", (0, 0, 0, 255), (0, 0, 0, 0)),
        canvas("LA", (0, 255), (0, 0)),
        with_hole((90, 140, 90)),
        with_hole((235, 180, 160)),
        with_hole((230, 235, 230)),
        with_hole((244, 244, 244)),
        with_hole((0, 0, 0), seed=3),
        canvas("RGB", (0, 0, 0), (255, 255, 255)),
        canvas("L", 0, 200),
        canvas("RGBA", (0, 0, 0, 255), (255, 255, 255, 251)),
        # A label map, and a coloured brush on black.
        canvas("RGB", (0, 0, 0), (128, 0, 0)),
        canvas("RGB", (0, 0, 0), (0, 0, 64)),
    ],
)
def test_a_mask_is_read_by_what_it_means(mask: Image.Image) -> None:
    found = meant(mask) > 127
    assert np.array_equal(found, RIGHT)


@pytest.mark.parametrize("radius", [2, 3, 4, 5, 6])
def test_a_coloured_brush_with_soft_edges_is_set_where_it_is_bright(radius: int) -> None:
    soft = canvas("RGB", (0, 0, 0), (255, 0, 0)).filter(ImageFilter.GaussianBlur(radius))
    assert (meant(soft) == np.asarray(soft)[..., 0]).all()


@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize(
    "labels",
    [
        [(192, 128, 0), (0, 192, 128), (64, 0, 0)],
        [(128, 0, 0), (0, 128, 0), (128, 128, 0)],
        [(128, 128, 128), (255, 0, 0), (220, 220, 0)],
    ],
)
def test_a_label_map_that_jpeg_has_touched_keeps_all_its_objects(
    labels: list[tuple[int, int, int]], quality: int
) -> None:
    whole = Image.new("RGB", (SIDE, SIDE))
    for number, colour in enumerate(labels):
        left, bottom = 10 + 80 * number, 230 - 70 * number
        ImageDraw.Draw(whole).rectangle((left, 40, left + 60, bottom), fill=colour)
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=quality)
    found = meant(Image.open(file)) > 127
    right = np.asarray(whole).any(axis=2)
    # A rim of a pixel or two is JPEG's.
    inside = np.asarray(Image.fromarray(right).convert("L").filter(ImageFilter.MinFilter(5))) > 0
    around = np.asarray(Image.fromarray(right).convert("L").filter(ImageFilter.MaxFilter(5))) > 0
    assert found[inside].all()
    assert not found[~around].any()


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (128, 0, 0)])
@pytest.mark.parametrize("other", [(0, 0, 0), (255, 0, 255)])
def test_a_small_coloured_stroke_is_set_too(
    colour: tuple[int, ...], other: tuple[int, ...]
) -> None:
    mask = canvas("RGB", (0, 0, 0), other)
    ImageDraw.Draw(mask).rectangle((10, 10, 14, 14), fill=colour)
    assert np.array_equal(meant(mask) > 127, np.asarray(mask).any(axis=2))


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("width", [4, 20])
@pytest.mark.parametrize(
    "colours",
    [
        [(255, 255, 255, 255)],
        [(220, 220, 220, 255)],
        [(255, 0, 0, 255), (0, 255, 0, 255), (255, 0, 255, 255)],
    ],
)
def test_strokes_of_a_few_brushes_are_set_at_any_size(
    colours: list[tuple[int, ...]], width: int, scale: int
) -> None:
    drawn = np.asarray(strokes(*colours, width=width))
    # As OpenCV does, and unlike Pillow: the edges get some of the canvas's hidden black.
    planes = [Image.fromarray(plane) for plane in np.moveaxis(drawn, 2, 0)]
    size = SIDE * scale, SIDE * scale
    resized = [plane.resize(size, Image.Resampling.BILINEAR) for plane in planes]
    assert (meant(Image.merge("RGBA", resized)) == np.asarray(resized[3])).all()


@pytest.mark.parametrize("resampling", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [SIDE * 3 // 4, SIDE * 2])
@pytest.mark.parametrize("width", [12, 40])
@pytest.mark.parametrize(
    "colours",
    [
        [(220, 220, 220, 255)],
        [(255, 182, 193, 255)],
        [(255, 255, 255, 255), (255, 0, 0, 255)],
    ],
)
def test_strokes_that_pillow_has_resized_are_set(
    colours: list[tuple[int, ...]], width: int, size: int, resampling: Image.Resampling
) -> None:
    resized = strokes(*colours, width=width).resize((size, size), resampling)
    assert (meant(resized) == np.asarray(resized.getchannel("A"))).all()


@pytest.mark.parametrize(
    "colours",
    [
        [(80, 220, 40, 255)],
        [(236, 70, 185, 255)],
        [(66, 88, 215, 255)],
        [(255, 0, 0, 255), (0, 255, 0, 255), (255, 255, 0, 255)],
    ],
)
def test_coloured_strokes_may_come_by_a_lossy_format(colours: list[tuple[int, ...]]) -> None:
    drawn, file = strokes(*colours), io.BytesIO()
    drawn.save(file, "WEBP", quality=75)
    read = Image.open(file).convert("RGBA")
    assert (meant(read) == np.asarray(read.getchannel("A"))).all()


def test_strokes_are_as_soft_as_they_are_opaque() -> None:
    mask = meant(canvas("RGBA", (0, 0, 0, 0), (255, 255, 255, 180)))
    assert set(np.unique(mask)) == {0, 180}


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (canvas("L", 0, 0), "No object found in mask .*brightest pixel is 0 of 255"),
        (canvas("L", 0, 1), "brightest pixel is 1 of 255"),
        (canvas("L", 0, 127), "brightest pixel is 127 of 255"),
        (Image.new("RGBA", (SIDE, SIDE)), "transparent everywhere"),
        (canvas("RGBA", (0, 0, 0, 0), (255, 255, 255, 100)), "brightest pixel is 100 of 255"),
        (canvas("RGBA", (0, 0, 0, 0), (90, 90, 90, 255)), "read in two ways"),
        # All but the object, painted in red: it is no picture with a hole.
        (canvas("RGBA", (255, 0, 0, 200), (0, 0, 0, 0)), "read in two ways"),
        (Image.open("examples/photo.jpg"), "looks like a photograph"),
        # A light picture with see-through margins, and one that has a hole too.
        (on_canvas((232, 232, 230), (200, 60, 40)), "read in two ways: 75% of it is transparent"),
        (on_canvas((232, 232, 230), (232, 232, 230)), "read in two ways"),
        (sticker(), "read in two ways"),
    ],
)
def test_what_is_empty_or_ambiguous_is_refused_with_what_was_seen(
    mask: Image.Image, seen: str
) -> None:
    with pytest.raises(MaskError, match=seen):
        meant(mask)


def test_black_keeps_what_it_covers_wherever_that_is() -> None:
    """A subject that is to stay, with everything around it to be edited."""
    assert np.array_equal(
        meant(strokes((0, 0, 0, 255))), 255 - meant(strokes((255, 255, 255, 255)))
    )


def test_black_and_white_with_holes_can_be_read_in_two_ways() -> None:
    mask = canvas("RGBA", (0, 0, 0, 255), (255, 255, 255, 255))
    ImageDraw.Draw(mask).rectangle((0, 0, 60, 60), fill=(0, 0, 0, 0))
    with pytest.raises(MaskError, match="read in two ways"):
        meant(mask)
