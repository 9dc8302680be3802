"""Owns refusing, while an image is built, what would fail on a GPU only after a download of 58 GB.

The Python that runs this must be the one that runs Triton's models.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import sysconfig
from pathlib import Path

COMPILERS = ("gcc", "clang")


def main() -> int:
    """Print what is missing, one line each.

    Returns:
        The exit status: 0 if nothing is missing.
    """
    found = problems()
    for problem in found:
        print(problem, file=sys.stderr)
    return min(len(found), 1)


def problems() -> list[str]:
    """Return what is missing, in words."""
    found = []
    try:
        importlib.import_module("tensorrt")
    except ImportError as error:
        found.append(f"TensorRT's bindings do not load: {error}")
    # torch.compile builds small C programs that call its kernels, and includes Python in them.
    if not any(map(shutil.which, COMPILERS)):
        found.append(f"no C compiler: neither {' nor '.join(COMPILERS)}")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.is_file():
        found.append(f"Python's headers are missing: {headers}")
    return found


if __name__ == "__main__":
    sys.exit(main())
