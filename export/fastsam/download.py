"""Owns the download of FastSAM's published checkpoints; their hash is checked."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError
from export.folders import replacing_file
from export.manifest import sha256 as sha256_of

URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/{name}.pt"
NAMES = ("FastSAM-s", "FastSAM-x")
TIMEOUT = 30.0
_CHUNK = 1 << 20


def download(url: str, sha256: str, target: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Fetch a file, unless a file with that hash lies there already.

    Args:
        url: where the file is.
        sha256: the file's hash, in hex. The publisher states none, so the operator must say which
            file is meant.
        target: where the file is to lie. It appears complete and checked, or not at all.
        on_bytes: called with the bytes received so far and in all (0 where unknown).

    Raises:
        ExportError: the network or the server failed, or the file has another hash.
    """
    if target.is_file() and sha256_of(target) == sha256.lower():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing_file(target) as unfinished:
            _receive(url, unfinished, on_bytes)
            found = sha256_of(unfinished)
            if found != sha256.lower():
                raise ExportError(f"{url}: has SHA-256 {found}, not {sha256}")
    except OSError as error:
        raise ExportError(f"{url}: {error}") from None


def _receive(url: str, path: Path, on_bytes: Callable[[int, int], None]) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        total, received = int(answer.headers.get("Content-Length", 0)), 0
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            on_bytes(received, total)
