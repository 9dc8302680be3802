from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from model_kit.errors import Code, CodedError
from model_kit.laps import Laps
from model_kit.lru import PendingError
from smart_mask.errors import cancelled
from smart_mask.features import STRIDE
from smart_mask.progress import Progress
from smart_mask.request import read_mask_request
from smart_mask.segmenter import Mask, Segmenter
from smart_mask.settings import MaskSettings

from .objects import SIDE, png

if TYPE_CHECKING:
    from collections.abc import Callable

    from smart_mask.letterbox import Floats, Pixels

SETTINGS = MaskSettings(
    network="by hand",
    image_size=SIDE,
    confidence=0.25,
    iou=0.7,
    max_detections=300,
    workers=2,
    max_queue_size=4,
    cache_bytes=10**6,
    cache_ttl_s=60,
    max_image_pixels=128 * 128,
    max_request_bytes=10**6,
)
# Left half, right half, and a small square in the middle of the network's input.
OBJECTS = ((0, 0, 32, 64), (32, 0, 64, 64), (24, 24, 40, 40))


class Network:
    """Finds OBJECTS in every picture; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate: threading.Event | None = None
        self.error: Exception | None = None
        self.shrink = 0  # pixels by which each edge of a box lies within its object

    def __call__(self, image: Floats) -> tuple[Floats, Floats]:
        assert image.shape == (1, 3, SIDE, SIDE)
        self.calls += 1
        if self.gate:
            assert self.gate.wait(60)
        if self.error:
            raise self.error
        small = SIDE // STRIDE
        predictions = np.zeros((37, len(OBJECTS)), np.float32)
        prototypes = np.full((32, small, small), -1, np.float32)
        for index, (left, top, right, bottom) in enumerate(OBJECTS):
            width, height = (size - 2 * self.shrink for size in (right - left, bottom - top))
            middle = ((left + right) / 2, (top + bottom) / 2)
            predictions[:5, index] = [*middle, width, height, 0.9 - index / 10]
            predictions[5 + index, index] = 1
            rows, columns = slice(top // STRIDE, bottom // STRIDE), slice(left // 4, right // 4)
            prototypes[index, rows, columns] = 1
        return predictions, prototypes


def no_check() -> None:
    pass


class Bench:
    def __init__(self) -> None:
        self.network = Network()
        self.segmenter = Segmenter(SETTINGS, self.network)
        self.laps = Laps()

    def ask(self, check: Callable[[], None] = no_check, **inputs: Any) -> Mask:
        tensors = {
            name: value if name in ("POINTS", "BBOX", "POINT_LABELS") else [value]
            for name, value in inputs.items()
        }
        self.laps = Laps()
        return self.segmenter.segment(read_mask_request(tensors, 10**6), Progress(self.laps, check))

    def refusal(self, **inputs: Any) -> CodedError:
        with pytest.raises(CodedError) as caught:
            self.ask(**inputs)
        return caught.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def pixels(mask: Mask) -> Pixels:
    picture = Image.open(BytesIO(mask.png))
    assert (picture.format, picture.mode) == ("PNG", "L")
    return np.asarray(picture)


def guidance(left: int, right: int) -> bytes:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, left:right] = 255
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_new_image_is_answered_with_its_id(bench: Bench) -> None:
    data = png(64, 64)
    mask = bench.ask(IMAGE=data, POINTS=[[5, 5]])
    assert mask.image_id == hashlib.sha256(data).hexdigest()
    assert mask.score == pytest.approx(0.9)
    assert (mask.cached, mask.detections) == (False, 3)
    assert mask.box == [0, 0, 32, 64]
    assert pixels(mask)[32, 10] == 255
    assert pixels(mask)[32, 60] == 0


def test_the_network_runs_once_for_an_image(bench: Bench) -> None:
    first = bench.ask(IMAGE=png(64, 64), POINTS=[[5, 5]])
    by_id = bench.ask(IMAGE_ID=first.image_id.encode(), POINTS=[[5, 5]])
    again = bench.ask(IMAGE=png(64, 64), POINTS=[[5, 5]])
    assert (by_id.cached, again.cached) == (True, True)
    assert first.png == by_id.png == again.png
    assert bench.network.calls == 1


def test_an_unknown_id_is_not_found(bench: Bench) -> None:
    error = bench.refusal(IMAGE_ID=b"0" * 64, AUTO_DETECT=True)
    assert error.code is Code.NOT_FOUND
    assert "IMAGE_ID: not found or expired: 000" in str(error)


def test_the_mask_has_the_size_of_the_upright_picture(bench: Bench) -> None:
    buffer = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.new("RGB", (60, 20)).save(buffer, "JPEG", exif=exif)
    mask = bench.ask(IMAGE=buffer.getvalue(), POINTS=[[2, 30]])
    assert pixels(mask).shape == (60, 20)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_mode_of_a_picture_works(bench: Bench, mode: str) -> None:
    buffer = BytesIO()
    Image.new(mode, (30, 20)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    assert pixels(bench.ask(IMAGE=buffer.getvalue(), AUTO_DETECT=True)).shape == (20, 30)


@pytest.mark.parametrize("size", [(1, 1), (1, 128), (128, 1), (7, 3)])
def test_the_smallest_pictures_work(bench: Bench, size: tuple[int, int]) -> None:
    mask = bench.ask(IMAGE=png(*size), POINTS=[[0, 0]])
    assert pixels(mask).shape == size[::-1]


def test_points_come_before_a_box_and_a_box_before_a_mask(bench: Bench) -> None:
    every: dict[str, Any] = {
        "POINTS": [[60, 32]],
        "BBOX": [0, 0, 30, 64],
        "MASK": guidance(28, 36),
        "AUTO_DETECT": True,
    }
    boxes = []
    while every:
        boxes.append(bench.ask(IMAGE=png(64, 64), **every).box)
        del every[next(iter(every))]
    assert boxes == [[32, 0, 64, 64], [0, 0, 32, 64], [24, 24, 40, 40], [0, 0, 32, 64]]


# CASIA-LMC-Lab/FastSAM#134, facebookresearch/segment-anything#524: two clicks on two objects
@pytest.mark.parametrize(
    ("prompts", "missed"),
    [
        ({"POINTS": [[5, 5]]}, []),
        ({"POINTS": [[5, 5], [60, 5]]}, [1]),
        ({"POINTS": [[60, 5], [5, 5], [5, 60]]}, [0]),
        ({"POINTS": [[1e6, 5], [5, 5], [-9, 60]]}, [0]),
        ({"POINTS": [[5, 5], [60, 5], [62, 9]], "POINT_LABELS": [1, 0, 1]}, [2]),
        ({"BBOX": [0, 0, 30, 64]}, []),
        ({"MASK": guidance(50, 60)}, []),
        ({"AUTO_DETECT": True}, []),
    ],
    ids=str,
)
def test_positive_points_that_the_mask_leaves_out_are_named(
    bench: Bench, prompts: dict[str, Any], missed: list[int]
) -> None:
    mask = bench.ask(IMAGE=png(64, 64), **prompts)
    assert mask.points_missed == missed
    if "POINTS" in prompts:
        places = np.array(prompts["POINTS"]).clip(0, 63).astype(int)
        inside = pixels(mask)[places[:, 1], places[:, 0]] > 127
        positive = np.array(prompts.get("POINT_LABELS", [1] * len(places)), np.bool_)
        assert np.flatnonzero(positive & ~inside).tolist() == missed


def test_a_box_short_of_the_border_still_makes_a_mask_up_to_it(bench: Bench) -> None:
    # cvat-ai/cvat#6250: the two edges of the left object end within the network's uncertainty.
    bench.network.shrink = 2
    mask = bench.ask(IMAGE=png(128, 128), POINTS=[[5, 60]])
    assert (pixels(mask)[40:80, 0] == 255).all()
    assert mask.box[0] == 0


def test_a_guidance_mask_of_another_size_is_stretched(bench: Bench) -> None:
    assert bench.ask(IMAGE=png(128, 128), MASK=guidance(4, 12)).box == [0, 0, 64, 128]


def test_the_middle_of_a_bent_guidance_mask_is_on_it(bench: Bench) -> None:
    """The centroid of a ring around the small square lies in the square, which is not meant."""
    ring = np.zeros((64, 64), np.uint8)
    ring[10:54, 10:54] = 255
    ring[14:50, 14:50] = 0
    buffer = BytesIO()
    Image.fromarray(ring).save(buffer, "PNG")
    assert bench.ask(IMAGE=png(64, 64), MASK=buffer.getvalue()).box in (
        [0, 0, 32, 64],
        [32, 0, 64, 64],
    )


def grey_guidance(value: int) -> bytes:
    grey = np.zeros((64, 64), np.uint8)
    grey[20:44, 50:60] = value
    buffer = BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("value", [128, 255])
def test_a_guidance_mask_is_set_above_127(bench: Bench, value: int) -> None:
    assert bench.ask(IMAGE=png(64, 64), MASK=grey_guidance(value)).box == [32, 0, 64, 64]


@pytest.mark.parametrize("value", [0, 100, 127])
def test_an_empty_guidance_mask_is_refused_with_what_was_seen(bench: Bench, value: int) -> None:
    error = bench.refusal(IMAGE=png(64, 64), MASK=grey_guidance(value))
    assert (
        f"MASK: No object found in mask (no white pixels): its brightest pixel is {value}"
        in str(error)
    )


def test_the_middle_of_a_large_guidance_mask_is_found_in_a_small_copy(bench: Bench) -> None:
    settings = replace(SETTINGS, max_image_pixels=2**26)
    bench.segmenter = Segmenter(settings, bench.network)
    stroke = Image.new("L", (4000, 3000))
    stroke.paste(255, (3000, 1000, 3003, 2000))  # thinner than a pixel of the copy
    buffer = BytesIO()
    stroke.save(buffer, "PNG")
    assert bench.ask(IMAGE=png(64, 64), MASK=buffer.getvalue()).box == [32, 0, 64, 64]


def test_an_object_that_is_shrunk_away_is_not_found(bench: Bench) -> None:
    error = bench.refusal(IMAGE=png(64, 64), POINTS=[[32, 32]], BORDER_ADJUSTMENT=-50)
    assert str(error).endswith("after smoothing and a border adjustment of -50 nothing is left")


def test_a_bad_guidance_mask_is_refused_beside_points_too(bench: Bench) -> None:
    error = bench.refusal(IMAGE=png(64, 64), POINTS=[[32, 32]], MASK=b"no picture")
    assert "MASK: Invalid image data" in str(error)


def test_the_salient_object_is_grown_unless_a_border_is_given(bench: Bench) -> None:
    def area(border: int) -> int:
        mask = bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True, BORDER_ADJUSTMENT=border)
        return int(pixels(mask).sum(dtype=np.int64))

    assert area(-6) < area(0) == area(5) < area(12)


def test_border_and_blur_change_the_mask(bench: Bench) -> None:
    plain = bench.ask(IMAGE=png(64, 64), POINTS=[[32, 32]], BORDER_ADJUSTMENT=6)
    blurred = bench.ask(IMAGE=png(64, 64), POINTS=[[32, 32]], BORDER_ADJUSTMENT=6, USE_BLUR=True)
    smaller = bench.ask(IMAGE=png(64, 64), POINTS=[[32, 32]], BORDER_ADJUSTMENT=2)
    assert len({plain.png, blurred.png, smaller.png}) == 3


def finds_nothing(_: Floats) -> tuple[Floats, Floats]:
    return np.zeros((37, 0), np.float32), np.zeros((32, SIDE // STRIDE, SIDE // STRIDE), np.float32)


def finds_the_left_half(image: Floats) -> tuple[Floats, Floats]:
    predictions, prototypes = Network()(image)
    return predictions[:, :1], prototypes


@pytest.mark.parametrize(
    ("infer", "prompts", "reason"),
    [
        (finds_the_left_half, {"POINTS": [[50.5, 9]]}, "no object is at [50.5, 9]"),
        (finds_the_left_half, {"POINTS": [[50.45, -0.9]]}, "no object is at [50.45, -0.9]"),
        (finds_the_left_half, {"POINTS": [[50.1234567, 9]]}, "no object is at [50.123, 9]"),
        (
            finds_the_left_half,
            {"POINTS": [[2**24, -1]]},
            "point 0, [16777216, -1], lies outside the picture of 64x64 pixels",
        ),
        (
            finds_the_left_half,
            {"POINTS": [[50, 9], [60, 9]]},
            "no object is at [50, 9] or at the other points",
        ),
        (
            finds_the_left_half,
            {"POINTS": [[50, 9], [64, 9]]},
            "point 1, [64, 9], lies outside the picture of 64x64 pixels",
        ),
        (
            finds_the_left_half,
            {"POINTS": [[5, 5], [50, 9], [50, -2]], "POINT_LABELS": [0, 1, 1]},
            "point 2, [50, -2], lies outside the picture of 64x64 pixels",
        ),
        (
            finds_the_left_half,
            {"POINTS": [[9, 9], [9, 40]], "POINT_LABELS": [1, 0]},
            "every object at the points also holds a point that must be outside",
        ),
        (
            finds_the_left_half,
            {"POINTS": [[50, 9], [900, 9]], "POINT_LABELS": [1, 0]},
            "no object is at [50, 9]",
        ),
        (
            finds_the_left_half,
            {"BBOX": [50, 5, 60, 9]},
            "no object overlaps the box [50, 5, 60, 9]",
        ),
        (
            finds_the_left_half,
            {"BBOX": [200, 20, 220, 30]},
            "the box [200, 20, 220, 30] lies outside the picture of 64x64 pixels",
        ),
        (
            finds_the_left_half,
            {"MASK": guidance(48, 56)},
            "no object is at [51.5, 31.5], the middle of the rough mask",
        ),
        (
            finds_nothing,
            {"POINTS": [[5, 5]]},
            "there is no object in the picture of 64x64 pixels",
        ),
        (
            finds_nothing,
            {"AUTO_DETECT": True},
            "there is no object in the picture of 64x64 pixels",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_nothing_is_found_the_reason_is_told(
    bench: Bench, infer: Callable[[Floats], Any], prompts: dict[str, Any], reason: str
) -> None:
    bench.segmenter = Segmenter(SETTINGS, infer)
    error = bench.refusal(IMAGE=png(64, 64), **prompts)
    assert str(error) == f"[INVALID_ARGUMENT] FastSAM did not generate any masks: {reason}"


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("IMAGE", b"no picture", "IMAGE: Invalid image data or unsupported format"),
        ("IMAGE", png(64, 64)[:-30], "IMAGE: Invalid image data or unsupported format"),
        ("IMAGE", png(129, 128), "IMAGE: 129x128 is more than the 16384 pixels allowed"),
        ("MASK", b"no picture", "MASK: Invalid image data or unsupported format"),
        ("MASK", png(300, 300), "MASK: 300x300 is more than the 16384 pixels allowed"),
    ],
)
def test_a_bad_picture_is_refused_by_name(bench: Bench, name: str, data: bytes, text: str) -> None:
    error = bench.refusal(**{"IMAGE": png(64, 64), "MASK": guidance(4, 12), name: data})
    assert error.code is Code.INVALID_ARGUMENT
    assert text in str(error)
    assert bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True)


def test_a_failing_network_fails_the_request_and_is_asked_again(bench: Bench) -> None:
    bench.network.error = RuntimeError("fastsam: away")
    with pytest.raises(RuntimeError, match="away"):
        bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True)
    bench.network.error = None
    assert not bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True).cached


def test_requests_for_the_same_new_image_at_once_run_the_network_once(bench: Bench) -> None:
    bench.network.gate = threading.Event()

    def ask(column: int) -> Mask:
        try:
            return bench.ask(IMAGE=png(64, 64), POINTS=[[column, 5]])
        except PendingError as pending:  # as MaskJobs does
            pending.ends.result()
            return bench.ask(IMAGE=png(64, 64), POINTS=[[column, 5]])

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, 5 + i) for i in range(6)]
        bench.network.gate.set()
        masks = [each.result() for each in asked]
    assert bench.network.calls == 1
    assert sum(not mask.cached for mask in masks) == 1
    assert len({mask.png for mask in masks}) == 1


def test_a_request_can_be_cancelled_between_any_two_stages() -> None:
    """A check that raises at its n-th call stops the request there; the next one works."""

    def cancelled_at(number: int) -> Callable[[], None]:
        calls = iter(range(number))

        def check() -> None:
            if next(calls, None) is None:
                raise cancelled()

        return check

    checks = 8  # of a request for a new image
    for number in range(checks):
        bench = Bench()
        with pytest.raises(CodedError, match="CANCELLED"):
            bench.ask(cancelled_at(number), IMAGE=png(64, 64), AUTO_DETECT=True)
        assert bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True)
    assert bench.ask(cancelled_at(checks), IMAGE=png(32, 32), AUTO_DETECT=True)


def test_the_time_of_every_stage_is_noted(bench: Bench) -> None:
    first = bench.ask(IMAGE=png(64, 64), AUTO_DETECT=True)
    stages = {"cache", "decode", "network", "detections", "select", "assemble", "finish", "encode"}
    assert set(bench.laps.seconds) == stages
    bench.ask(IMAGE_ID=first.image_id.encode(), AUTO_DETECT=True)
    assert set(bench.laps.seconds) == stages - {"decode", "network", "detections"}
    assert all(seconds >= 0 for seconds in bench.laps.seconds.values())
