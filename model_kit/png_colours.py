"""Owns what a PNG says of its colours without an ICC profile, by its chunks cICP, gAMA and cHRM.

Source: PNG specification, third edition, 11.3.2 and 4.3; numbers of cICP: ITU-T H.273.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model_kit.structure import png_chunks

Floats = npt.NDArray[np.float64]
Chromaticities = tuple[float, ...]
"""x and y of white, red, green and blue, in the order of a cHRM chunk."""

_D65 = (0.3127, 0.3290)
_BT_709: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: _BT_709,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_SRGB_GAMMA = 0.45455
"""What a gAMA chunk says for sRGB, whose curve is no power (PNG specification, 11.3.2.5)."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_SAMPLES = 1024
"""Of a curve."""
_SDR_WHITE_NITS = 203.0
"""Light of a white page beside high dynamic range (BT.2408); what is brighter is clipped."""


def described_profile(data: bytes, info: Mapping[Any, object], is_grey: bool) -> bytes | None:
    """Return the ICC profile that the chunks of a PNG amount to.

    cICP decides before an ICC profile, that before sRGB, and that before gAMA and cHRM.

    Args:
        data: the file.
        info: of Pillow's picture: `icc_profile`, `srgb`, `gamma` and `chromaticity`.
        is_grey: whether its pixels are grey.

    Returns:
        None if the file's own profile decides, if it has nothing of all this, or if it says sRGB.
    """
    space = b"GRAY" if is_grey else b"RGB "
    if (code := _cicp(data)) is not None and (curve := _cicp_curve(code)) is not None:
        return _profile(_PRIMARIES[code[0]], curve, space)
    if "icc_profile" in info or "srgb" in info:
        return None
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    if not isinstance(primaries, tuple) or not _are_sound(primaries):
        primaries = _BT_709
    if isinstance(gamma, float) and 0.1 <= gamma <= 10 and abs(gamma / _SRGB_GAMMA - 1) > 0.02:
        return _profile(primaries, _steps() ** (1 / gamma), space)
    return None if primaries is _BT_709 else _profile(primaries, _srgb(_steps()), space)


def _steps() -> Floats:
    return np.linspace(0, 1, _SAMPLES)


def _cicp(data: bytes) -> bytes | None:
    """Return the primaries, transfer function, matrix and full-range flag of a cICP chunk."""
    for kind, start, length in png_chunks(data):
        if kind == b"cICP" and length == 4:
            return data[start : start + 4]
        if kind == b"IDAT":
            break
    return None


def _cicp_curve(code: bytes) -> Floats | None:
    """Return the light, 0 to 1, of evenly spaced samples; None for a code that is not known."""
    primaries, transfer, matrix, full_range = code
    if primaries not in _PRIMARIES or matrix != 0 or full_range != 1:
        return None
    curves = {4: _gamma_22, 8: _linear, 13: _srgb, 16: _perceptual_quantiser, 18: _hybrid_log_gamma}
    # Television's curves are made for a dark room. Browsers show them as they show sRGB.
    curves |= dict.fromkeys((1, 6, 14, 15), _srgb)
    return curves[transfer](_steps()) if transfer in curves else None


def _linear(signal: Floats) -> Floats:
    return signal


def _gamma_22(signal: Floats) -> Floats:
    return signal**2.2


def _srgb(signal: Floats) -> Floats:
    light: Floats = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light


def _perceptual_quantiser(signal: Floats) -> Floats:
    """SMPTE ST 2084."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    nits = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    light: Floats = np.minimum(nits / _SDR_WHITE_NITS, 1)
    return light


def _hybrid_log_gamma(signal: Floats) -> Floats:
    """ARIB STD-B67; white is at three quarters of the signal (BT.2408)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073

    def light(value: Floats) -> Floats:
        return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)

    relative: Floats = np.minimum(light(signal) / light(np.array(0.75)), 1)
    return relative


def _profile(primaries: Chromaticities, curve: Floats, space: bytes) -> bytes:
    """Return an ICC profile of version 4.3 (ISO 15076-1)."""
    tags = {
        b"desc": _text("Colours of the PNG"),
        b"cprt": _text("No copyright"),
        b"wtpt": _xyz(_D50),
    }
    samples = (curve * 65535).round().astype(">u2")
    encoded = b"curv\0\0\0\0" + struct.pack(">I", _SAMPLES) + samples.tobytes()
    if space == b"GRAY":
        tags[b"kTRC"] = encoded
    else:
        for name, colorant in zip("rgb", _colorants(primaries).T, strict=True):
            tags[f"{name}XYZ".encode()] = _xyz(colorant)
            tags[f"{name}TRC".encode()] = encoded
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}  # tags of the same data share it
    for tag, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", places[data], len(data))
    head = struct.pack(
        ">I4xI4s4s4s12s4s24xI12s",
        start + len(body),
        0x04300000,
        b"mntr",
        space,
        b"XYZ ",
        b"\x07\xd0\0\x01\0\x01" + b"\0" * 6,  # a date is asked for: the first of January 2000
        b"acsp",
        1,  # relative colorimetric
        _fixed(_D50),
    )
    return head.ljust(128, b"\0") + table + body


def _colorants(primaries: Chromaticities) -> Floats:
    """Return red, green and blue, each a column of X, Y and Z, as seen in the light of D50."""
    white, *others = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _points(primaries))
    matrix = np.stack(others, axis=1)
    light = matrix * np.linalg.solve(matrix, white)
    gains = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: Floats = np.linalg.solve(_BRADFORD, gains @ _BRADFORD @ light)
    return adapted


def _are_sound(primaries: Chromaticities) -> bool:
    """Return whether the primaries are colours of light and span a triangle."""
    points = np.array(_points(primaries))
    if points.min() < 0 or points.max() > 1 or points[:, 1].min() < 0.01:
        return False
    red, green, blue = points[1:]
    return bool(abs(np.linalg.det(np.stack([green - red, blue - red]))) > 0.02)


def _points(primaries: Chromaticities) -> list[tuple[float, float]]:
    return list(zip(primaries[::2], primaries[1::2], strict=True))


def _xyz(values: Floats) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: Floats) -> bytes:
    """Return numbers of 16 bits before the point and 16 behind it."""
    return (values * 65536).round().astype(">i4").tobytes()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return (
        b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
    )
