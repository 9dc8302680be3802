"""Owns how a model reads a picture that may come straight from a stranger.

The frontend sends plain pixels, and reading these parses nothing. A direct client sends files. A
parser in the model's process could not be stopped, so a worker reads them, within bounds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_kit import pictures, raster, sandbox
from model_kit.colour import usable
from model_kit.errors import Code, CodedError
from model_kit.masks import MaskError, not_empty, read_mask
from model_kit.pictures import ImageRefusedError, Picture, Pixels, warm_up

__all__ = ["decode", "decode_mask", "decode_rgb", "mask", "picture", "shown", "warm_up"]

REFUSALS = (ImageRefusedError, MaskError)
"""By which the functions for workers refuse a file."""


def decode(data: bytes, max_pixels: int) -> Picture:
    """Do as `pictures.decode`, in a worker if anything has to be parsed.

    Raises:
        ImageRefusedError: as there; or it takes too long, or crashes its parser.
        CodedError: UNAVAILABLE: no worker can be had.
    """
    return _picture(_as_pixels("picture", data, max_pixels), max_pixels)


def decode_rgb(data: bytes, max_pixels: int) -> Pixels:
    """Do as `pictures.decode_rgb`, in a worker if anything has to be parsed."""
    return _picture(_as_pixels("shown", data, max_pixels), max_pixels).shown()


def decode_mask(data: bytes, max_pixels: int) -> Pixels:
    """Do as `pictures.decode_mask`, in a worker if anything has to be parsed."""
    return _mask(_as_pixels("mask", data, max_pixels), max_pixels)


def _as_pixels(function: str, data: bytes, max_pixels: int) -> bytes:
    if raster.is_raster(data) and not raster.has_profile(data):
        return data
    work = sandbox.Work(
        function,
        [data],
        {"max_pixels": max_pixels},
        seconds=pictures.seconds_for(max_pixels),
        memory=pictures.memory_for(max_pixels),
    )
    try:
        (pixels,) = sandbox.shared(__name__).run(work)
    except sandbox.RefusedError as error:
        raise ImageRefusedError(str(error)) from error
    except sandbox.SandboxError as error:
        raise CodedError(Code.UNAVAILABLE, "no picture can be decoded now") from error
    return pixels


def _picture(data: bytes, max_pixels: int) -> Picture:
    pixels, alpha, profile = _plain(data, max_pixels)
    return Picture(np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels, alpha, profile)


def _mask(data: bytes, max_pixels: int) -> Pixels:
    pixels, alpha, _ = _plain(data, max_pixels)
    if pixels.ndim == 2:
        return not_empty(pixels)
    return read_mask(pixels if alpha is None else np.dstack([pixels, alpha]))


def _plain(data: bytes, max_pixels: int) -> tuple[Pixels, Pixels | None, bytes | None]:
    try:
        return raster.read(data, max_pixels)
    except raster.RasterError as error:
        raise ImageRefusedError(str(error)) from error


# --- in a worker ---


def picture(data: bytes, max_pixels: int) -> list[list[raster.Buffer]]:
    """Return a file's picture as plain pixels."""
    read = _read(data, max_pixels)
    return [raster.write(read.native, read.alpha, read.profile)]


def shown(data: bytes, max_pixels: int) -> list[list[raster.Buffer]]:
    """Return what a browser shows of a file, as plain pixels."""
    return [raster.write(_read(data, max_pixels).shown())]


def mask(data: bytes, max_pixels: int) -> list[list[raster.Buffer]]:
    """Return a file's mask, by what it means, as plain pixels."""
    if raster.is_raster(data):
        return [raster.write(_mask(data, max_pixels))]
    return [raster.write(pictures.decode_mask(data, max_pixels))]


def _read(data: bytes, max_pixels: int) -> Picture:
    if not raster.is_raster(data):
        return pictures.decode(data, max_pixels)
    plain = _picture(data, max_pixels)
    return replace(plain, profile=plain.profile and usable(plain.profile, "RGB")).writable()
