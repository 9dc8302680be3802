"""Owns the figures of `region`: what stays, what it costs, colours, sharpness and geometry."""

import base64
import io
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageOps

from benchmarks import client as rest
from benchmarks.pictures import base64_png, from_base64
from export.demo_edits.results import held_out
from export.demo_edits.samples import Flow
from export.demo_edits.score import angular_error
from export.scenes.edits import Pixels
from export.scenes.photographs import HELD_OUT, load

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

EXAMPLES = Path(__file__).parents[1] / "examples"
KNOWN_SIDES = (1024, 2048)
"""Of the squares that the known web client sends."""
KNOWN_STEPS = 15
PHOTOGRAPH = (4000, 3000)
"""As a phone takes it."""
SEEN = 256
"""Longer side of the pictures that the plot shows."""
OBJECT = 200
"""Diameter of the masked disc in pixels, whatever the picture's size."""
STEPS = 4
FEATHER = 1 / 64
"""Of the crop's longer side: how far beyond the mask the server may change pixels."""
MIN_FEATHER = 4
ODD_SIZES = (
    (301, 207), (257, 255), (333, 470), (500, 123), (97, 411),
    (200, 200), (511, 513), (129, 384), (447, 300), (350, 61),
)  # fmt: skip


async def measure(
    url: str, *, sizes: Sequence[int], photographs: int, casts: int
) -> dict[str, Any]:
    """Edit photographs by `auto` and `full`, one after the other on an otherwise idle server.

    Args:
        url: REST address of a server of the demo bundle.
        sizes: sides of the square pictures, in pixels.
        photographs: how many photographs of each size.
        casts: how many scenes with a cast of light.

    Returns:
        `crops`: size -> of each region the seconds, and of `auto` the pixels that differ outside
        the soft edge and the mean gradient across that edge, before and after. `in_a_row`: pixels
        outside all of five masks that differ after five edits, each on the last result.
        `white_balance`: of each region the angle to the truth in degrees, and the variance of the
        Laplacian by the input's; `truth` has the latter, because other light is other contrast.
        `known_client`: side -> task -> seconds from submission to result of what the known web
        client asks for, a square in 15 steps, and the sizes that were computed. `photograph`: the
        same of a removal from 12 megapixels by `auto`, in the default steps. `shift`: size ->
        largest shift in pixels of the left and the right third, and the difference between the two.
        `pictures`: what to look at, WebP in base64 by title.
    """
    async with rest.connect(url) as client:
        pictures: dict[str, str] = {}
        return {
            "steps": STEPS,
            "object_px": OBJECT,
            "crops": {size: await _crops(client, size, photographs, pictures) for size in sizes},
            "in_a_row": await _in_a_row(client),
            "white_balance": await _white_balance(client, casts),
            "known_client": {
                side: await _known_client(client, side, pictures) for side in KNOWN_SIDES
            },
            "photograph": await _photograph(client),
            "shift": {
                f"{width}x{height}": await _shift(client, (width, height))
                for width, height in ODD_SIZES
            },
            "pictures": pictures,
        }


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the seconds of an edit by the picture's size, for both regions, and the pictures."""
    axes.axis("off")
    for number, (title, data) in enumerate(results["pictures"].items()):
        row, column = divmod(number, 3)
        panel = axes.inset_axes((0.4 + 0.21 * column, 0.7 - 0.36 * row, 0.19, 0.27))
        panel.imshow(np.asarray(from_base64(data)))
        panel.set_title(title, size="xx-small")
        panel.axis("off")
    axes = axes.inset_axes((0, 0, 0.34, 0.9))
    sizes = [str(size) for size in results["crops"]]
    for offset, region in ((-0.2, "auto"), (0.2, "full")):
        seconds = [found[region]["seconds"] for found in results["crops"].values()]
        axes.bar(np.arange(len(sizes)) + offset, seconds, 0.38, label=f"region {region}")
    axes.set_xticks(range(len(sizes)), [f"{size}²" for size in sizes])
    axes.set_ylabel("seconds")
    axes.set_title(
        f"removal of a {results['object_px']} px object, {results['steps']} steps", size="small"
    )
    axes.legend(loc="lower center")


async def _edit(
    client: httpx.AsyncClient, picture: Image.Image, mask: Image.Image | None, **fields: Any
) -> tuple[Pixels, float]:
    request = {
        "prompt": "remove the object" if mask else "correct the white balance",
        "task_type": "removal" if mask else "white-balance",
        "input_image": base64_png(picture),
        "conditional_images": [base64_png(mask)] if mask else None,
        "input_quality": "original",
        "num_inference_steps": STEPS,
        "seed": 1,
        **fields,
    }
    result = await rest.edit(client, request)
    return np.asarray(from_base64(result["image"])), float(result["generation_time"])


async def _crops(
    client: httpx.AsyncClient, size: int, count: int, pictures: dict[str, str]
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"auto": [], "full": []}
    differing, before, after = 0, [], []
    for photograph in load(HELD_OUT)[:count]:
        picture = _square(photograph, size)
        mask = _disc((size, size), (size // 2, size // 2), min(OBJECT, size // 2))
        source = np.asarray(picture)
        for region in seconds:
            found, took = await _edit(client, picture, mask, region=region)
            seconds[region].append(took)
            pictures[f"{region}, {size}²"] = _small(found)
            if region == "auto":
                reach = _reach(mask)
                differing += int((found != source).any(axis=2)[~reach].sum())
                edge = reach & ~_grown(mask, 1)
                before.append(_gradient(source, edge))
                after.append(_gradient(found, edge))
    return {
        "auto": {
            "seconds": statistics.median(seconds["auto"]),
            "pixels_that_differ_outside": differing,
            "gradient_across_the_edge": {
                "input": round(statistics.mean(before), 2),
                "result": round(statistics.mean(after), 2),
            },
        },
        "full": {"seconds": statistics.median(seconds["full"])},
    }


async def _in_a_row(client: httpx.AsyncClient) -> dict[str, int]:
    size = 1024
    first = _square(load(HELD_OUT)[0], size)
    picture, touched = first, np.zeros((size, size), np.bool_)
    for number in range(5):
        mask = _disc((size, size), (150 + 180 * number, 200 + 150 * number), 80)
        touched |= _reach(mask)
        found, _ = await _edit(client, picture, mask, region="auto")
        picture = Image.fromarray(found)
    differs = (np.asarray(picture) != np.asarray(first)).any(axis=2)
    return {"edits": 5, "pixels_that_differ_outside": int(differs[~touched].sum())}


async def _white_balance(client: httpx.AsyncClient, count: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {
        region: {"angle": [], "sharpness": []} for region in ("auto", "full")
    }
    truth = []
    for index in range(count):
        sample = held_out(Flow.WHITE_BALANCE, index, 512)
        source = sample.scene.source
        truth.append(_sharpness(sample.truth) / _sharpness(source))
        for region, each in found.items():
            picture, _ = await _edit(client, Image.fromarray(source), None, region=region)
            each["angle"].append(angular_error(picture, sample.truth))
            each["sharpness"].append(_sharpness(picture) / _sharpness(source))
    return {
        region: {name: round(statistics.mean(values), 3) for name, values in each.items()}
        for region, each in found.items()
    } | {"truth": {"sharpness": round(statistics.mean(truth), 3)}}


async def _known_client(
    client: httpx.AsyncClient, side: int, pictures: dict[str, str]
) -> dict[str, Any]:
    """Edit as the known web client does: all in one square, the whole picture, 15 steps."""

    def square(name: str, mode: str = "RGB") -> str:
        return base64_png(ImageOps.pad(Image.open(EXAMPLES / name).convert(mode), (side, side)))

    tasks: dict[str, dict[str, Any]] = {
        "white-balance": {"prompt": "correct the white balance"},
        "removal": {"prompt": "remove object", "conditional_images": [square("mask.png", "L")]},
        "insertion": {
            "prompt": "put the red ball here",
            "conditional_images": [square("insertion-mask.png", "L")],
            "reference_image": square("ball.jpg"),
        },
    }
    found = {}
    photo = square("photo.jpg")
    for task, fields in tasks.items():
        request = {
            "task_type": task,
            "input_image": photo,
            "input_quality": "resized",
            "num_inference_steps": KNOWN_STEPS,
            "seed": 1,
            **fields,
        }
        seconds, result = await _timed(client, request)
        found[task] = seconds
        if side == KNOWN_SIDES[0]:
            pictures[f"known client: {task}"] = _small(np.asarray(from_base64(result["image"])))
    return found


async def _photograph(client: httpx.AsyncClient) -> dict[str, Any]:
    photo, mask = (Image.open(EXAMPLES / name) for name in ("photo.jpg", "mask.png"))
    request = {
        "prompt": "remove object",
        "task_type": "removal",
        "input_image": base64_png(photo.convert("RGB").resize(PHOTOGRAPH)),
        "conditional_images": [base64_png(mask)],
        "input_quality": "original",
        "region": "auto",
        "seed": 1,
    }
    return (await _timed(client, request))[0]


async def _timed(
    client: httpx.AsyncClient, request: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the seconds from submission to result with the computed sizes, and the result."""
    started = time.perf_counter()
    result = await rest.edit(client, request)
    seconds = round(time.perf_counter() - started, 2)
    computed = [each["computed_size"] for each in result["parameters_used"]["regions"]]
    return {"seconds": seconds, "computed": computed}, result


async def _shift(client: httpx.AsyncClient, size: tuple[int, int]) -> dict[str, float]:
    width, height = size
    cells = (height // 6 + 2, width // 6 + 2, 3)
    rough = np.random.default_rng(7).integers(0, 256, cells, np.uint8)
    picture = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
    mask = _disc(size, (width // 2, height // 2), max(6, min(size) // 12))
    found, _ = await _edit(client, picture, mask, region="full")
    if found.shape != (height, width, 3):
        raise ValueError(f"{size} came back as {found.shape}")
    third = width // 3
    source = np.asarray(picture)
    left, right = (
        _moved(source[:, part], found[:, part])
        for part in (slice(0, third), slice(width - third, width))
    )
    largest = max(abs(value) for value in (*left, *right))
    apart = max(abs(a - b) for a, b in zip(left, right, strict=True))
    return {"shift": round(largest, 3), "difference": round(apart, 3)}


def _moved(source: Pixels, found: Pixels) -> tuple[float, float]:
    """Return by how many pixels a picture has moved, in x and y."""
    before, after = _grey(source), _grey(found)
    moved = cv2.phaseCorrelate(before, after)[0]
    # OpenCV pads each side to a length that its transform likes. Where that is odd, it finds half
    # a pixel between a picture and itself.
    nothing = cv2.phaseCorrelate(before, before)[0]
    return moved[0] - nothing[0], moved[1] - nothing[1]


def _small(pixels: Pixels) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SEEN, SEEN))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP")
    return base64.b64encode(buffer.getvalue()).decode()


def _square(photograph: Pixels, size: int) -> Image.Image:
    side = min(photograph.shape[:2])
    return Image.fromarray(photograph[:side, :side]).resize((size, size), Image.Resampling.LANCZOS)


def _disc(size: tuple[int, int], centre: tuple[int, int], diameter: int) -> Image.Image:
    mask = Image.new("L", size)
    x, y = centre
    radius = diameter / 2
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def _reach(mask: Image.Image) -> Flags:
    """Return where the server may change pixels: in the mask and on its soft edge."""
    hard = np.asarray(mask) > 127
    rows, columns = np.nonzero(hard)
    longest = int(max(np.ptp(rows), np.ptp(columns))) + 1
    crop = min(max(512, 2 * longest), *mask.size)
    return _grown(mask, max(MIN_FEATHER, round(FEATHER * crop)) + 1)


def _grown(mask: Image.Image, radius: int) -> Flags:
    away = np.where(np.asarray(mask) > 127, 0, 255).astype(np.uint8)
    grown: Flags = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius
    return grown


def _grey(pixels: Pixels) -> Floats:
    grey: Floats = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return grey


def _gradient(pixels: Pixels, where: Flags) -> float:
    grey = _grey(pixels)
    down, across = np.gradient(grey)
    return float(np.hypot(down, across)[where].mean())


def _sharpness(pixels: Pixels) -> float:
    return float(cv2.Laplacian(_grey(pixels), cv2.CV_32F).var())
