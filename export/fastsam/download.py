"""Downloads FastSAM's published checkpoints, their hash checked."""

import hashlib
import urllib.request
from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError

URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/{name}.pt"
NAMES = ("FastSAM-s", "FastSAM-x")
TIMEOUT = 30.0
_CHUNK = 1 << 20


def download(url: str, sha256: str, target: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Fetches a file, unless it lies there already with that hash.

    Args:
        url: where it is.
        sha256: its hash, in hex. The publisher states none, so that whoever downloads must say
            which file they mean.
        target: where it shall lie; it appears complete and checked or not at all.
        on_bytes: called with the bytes received so far and in all (0 where not known).

    Raises:
        ExportError: the network or the server failed, or the file has another hash.
    """
    if target.is_file() and digest(target) == sha256.lower():
        return
    unfinished = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, unfinished.open("wb") as file:
            total, received = int(answer.headers.get("Content-Length", 0)), 0
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                on_bytes(received, total)
        found = digest(unfinished)
        if found != sha256.lower():
            raise ExportError(f"{url}: has SHA-256 {found}, not {sha256}")
        unfinished.replace(target)
    except OSError as error:
        raise ExportError(f"{url}: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Gives the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
