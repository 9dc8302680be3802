"""Owns finding the Python bindings that fit the TensorRT of a base image.

Prints one requirement for pip, or nothing where the image has no TensorRT.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

LIBRARIES = Path("/usr/lib")


def main() -> None:
    """Print the requirement, and nothing in an image without TensorRT."""
    for library in sorted(LIBRARIES.glob("*/libnvinfer.so.*"))[:1]:
        print(requirement(ctypes.CDLL(str(library)).getInferLibVersion()))


def requirement(version: int) -> str:
    """Return what pip must install for a version, 10000 x major + 100 x minor + patch."""
    major, minor, patch = version // 10000, version // 100 % 100, version % 100
    return f"tensorrt-cu13-bindings=={major}.{minor}.{patch}.*"


if __name__ == "__main__":
    main()
