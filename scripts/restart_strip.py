"""Owns docs/images/restart.png: an edit goes on after kill -9 of everything, as its user sees it.

    .venv/bin/python -m scripts.restart_strip [--out FILE]

A real `artmancer serve` and `artmancer edit`; what stands in the picture is what the terminal of
the second showed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import matplotlib
import psutil
from PIL import Image, ImageDraw, ImageFont

from frontend.launcher import ports
from frontend.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = CHECKOUT / "docs" / "images" / "restart.png"
ARTMANCER = str(Path(sys.prefix, "bin", "artmancer"))
STEPS, KILLED_AT = 12, 5
PATIENCE_S = 300.0
COLUMNS = 92
# Of the terminal's commands, rich sends only these.
_COMMAND = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
# A line of rich's progress, or one without a bar.
_BAR = re.compile(r"([^━╸╺]*)(━*╸?)(╺?━*)(.*)")
BACKGROUND, TEXT, QUIET = (24, 26, 32), (226, 228, 233), (140, 146, 160)
DONE, LEFT = (249, 38, 114), (70, 74, 84)
LINE_HEIGHT, MARGIN, FONT_SIZE = 26, 20, 16


class Server:
    """An `artmancer serve` with a Triton of its own, whose jobs lie in a folder.

    Args:
        folder: its state, and its log.
    """

    def __init__(self, folder: Path) -> None:
        port, grpc = ports.free(2)
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        self._environment = os.environ | {
            "ARTMANCER_PORT": str(port),
            "ARTMANCER_TRITON_GRPC_PORT": str(grpc),
            "ARTMANCER_STATE_FOLDER": str(folder / "state"),
        }

    def start(self) -> None:
        """Start it, and return once it can run edits."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [ARTMANCER, "serve"], env=self._environment, stdout=log, stderr=log
            )
        wait_for(self._is_ready)

    def kill(self) -> None:
        """Kill the frontend, tritonserver and all models with no warning."""
        frontend = psutil.Process(self._process.pid)
        everything = [frontend, *frontend.children(recursive=True)]
        for each in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        psutil.wait_procs(everything)

    def stop(self) -> None:
        """Stop it in order."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        return False


class Terminal:
    """A command in a terminal of its own, and what stands in that terminal's last line.

    Args:
        command: with its arguments.
    """

    def __init__(self, *command: str) -> None:
        self.line = ""
        self._began = time.monotonic()
        ours, theirs = pty.openpty()
        environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm"}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def has_ended(self) -> bool:
        """Return whether the command has ended."""
        return self._process.poll() is not None

    def _read(self, ours: int) -> None:
        pending = ""
        with contextlib.suppress(OSError):  # its end
            while received := os.read(ours, 4096):
                pending += _COMMAND.sub("", received.decode(errors="replace"))
                *lines, pending = re.split(r"[\r\n]+", pending)
                for line in (*lines, pending):
                    self.line = line.rstrip() or self.line


def wait_for(reached: Callable[[], bool]) -> None:
    """Return once something is so.

    Raises:
        TimeoutError: it is not, for PATIENCE_S.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def story() -> list[tuple[float, str, str]]:
    """Kill everything in the middle of an edit, and start it again.

    Returns:
        Seconds since the edit's start, what happened, and the last line of its terminal.
    """
    seen: list[tuple[float, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name))
        server.start()
        picture, mask = (str(CHECKOUT / "examples" / each) for each in ("photo.jpg", "mask.png"))
        command = ["edit", "--image", picture, "--mask", mask, "--steps", str(STEPS)]
        command += ["--url", server.url, "--out", str(Path(name, "edited.png"))]
        edit = Terminal(ARTMANCER, *command)

        def note(what: str) -> None:
            seen.append((edit.seconds, what, edit.line.replace(f"{name}/", "")))

        wait_for(lambda: f"step {KILLED_AT} of" in edit.line)
        note("$ artmancer edit --image photo.jpg --mask mask.png")
        server.kill()
        time.sleep(2)
        note("$ kill -9: the frontend, tritonserver and every model")
        server.start()
        note("$ artmancer serve")
        wait_for(lambda: f"step {KILLED_AT + 3} of" in edit.line)
        note("the edit has begun anew, and overtaken itself")
        wait_for(edit.has_ended)
        note("it ends as if nothing had been")
        server.stop()
    return seen


def draw(seen: list[tuple[float, str, str]]) -> Image.Image:
    """Draw the story, a frame below the other."""
    font = ImageFont.truetype(str(_FONT), FONT_SIZE)
    width = 2 * MARGIN + round(font.getlength("m" * (COLUMNS + 8)))
    image = Image.new("RGB", (width, 2 * MARGIN + LINE_HEIGHT * (3 * len(seen) - 1)), BACKGROUND)
    pen = ImageDraw.Draw(image)
    indent = MARGIN + font.getlength("m" * 8)
    for number, (seconds, what, line) in enumerate(seen):
        y = MARGIN + 3 * LINE_HEIGHT * number
        pen.text((MARGIN, y), f"{seconds:4.0f} s", QUIET, font)
        pen.text((indent, y), what, QUIET, font)
        x = indent
        before, done, left, after = _BAR.fullmatch(line).groups()  # type: ignore[union-attr]
        for part, colour in ((before, TEXT), (done, DONE), (left, LEFT), (after, TEXT)):
            pen.text((x, y + LINE_HEIGHT), part, colour, font)
            x += font.getlength(part)
    return image


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.restart_strip",
        description="Draw how an edit outlives a kill -9 of everything. It takes a minute or two.",
    )
    parser.add_argument(
        "--out", type=Path, default=PICTURE, help="PNG to write (default: %(default)s)"
    )
    out = parser.parse_args().out
    draw(story()).save(out, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
