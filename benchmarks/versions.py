"""Owns measuring this version beside another one: `python -m benchmarks.versions --before DIR`."""

import asyncio
import base64
import contextlib
import io
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from matplotlib.axes import Axes
from PIL import Image
from rich.console import Console

from benchmarks import client as rest
from benchmarks import report
from benchmarks.server import ROOT, Endpoints, serving
from frontend.launcher import ports

SIZE, STEPS = 256, 20
CLICK_SIDE = 1024
PHOTOGRAPH = ROOT / "examples" / "warm-light.jpg"
CUP = (285, 75)

Seconds = dict[str, float]
T = TypeVar("T")


async def measure(before: str, after: str, *, pairs: int) -> dict[str, Any]:
    """Do the same on both servers by turns, each first in half of the pairs.

    Args:
        before: URL of the other version's server.
        after: URL of this version's.
        pairs: how often.

    Returns:
        Of each thing done: milliseconds by both, and the ratio and the difference of each pair.
    """
    found: dict[str, dict[str, list[float]]] = {}
    async with rest.connect(before) as old, rest.connect(after) as new:
        for server in (old, new):
            await _all(server, 0)  # warm
        for number in range(1, pairs + 1):
            order = [("before", old), ("after", new)]
            for version, server in order if number % 2 else reversed(order):
                for what, seconds in (await _all(server, number)).items():
                    found.setdefault(what, {}).setdefault(version, []).append(1000 * seconds)
    return {
        "pairs": pairs,
        "steps": STEPS,
        "size": SIZE,
        "click_side": CLICK_SIDE,
        "ms": {
            what: {
                "before": report.summary(each["before"]),
                "after": report.summary(each["after"]),
                "ratio": report.summary(
                    [b / a for a, b in zip(each["before"], each["after"], strict=True)]
                ),
                "more": report.summary(
                    [b - a for a, b in zip(each["before"], each["after"], strict=True)]
                ),
            }
            for what, each in found.items()
        },
    }


async def _all(server: httpx.AsyncClient, number: int) -> Seconds:
    """Return the seconds of each thing that a client does, once."""
    return await _edit(server) | await _clicks(server, number)


async def _edit(server: httpx.AsyncClient) -> Seconds:
    started = time.perf_counter()
    task_id = await rest.submit(server, rest.edit_request(SIZE, STEPS))
    submitted = time.perf_counter() - started
    events = await rest.follow(server, task_id)
    whole = time.perf_counter() - started
    computed = (await rest.result(server, task_id))["generation_time"]
    return {
        "submission": submitted,
        "first event": events[0].at - started,
        f"edit of {STEPS} steps": whole,
        "the same, less the model's own time": whole - computed,
    }


async def _clicks(server: httpx.AsyncClient, number: int) -> Seconds:
    with Image.open(PHOTOGRAPH) as opened:
        scale = CLICK_SIDE / opened.width
        picture = opened.convert("RGB").resize((CLICK_SIDE, CLICK_SIDE))
    # Else the model knows it already.
    picture.paste((8 * number % 256, 0, 0), (0, 0, 16, 16))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=90)
    click: dict[str, Any] = {"points": [[round(scale * each) for each in CUP]]}
    image = base64.b64encode(encoded.getvalue()).decode()

    async def post(body: dict[str, Any]) -> dict[str, Any]:
        answer = await server.post("/api/smart-mask", json=body | click)
        if answer.is_error:
            raise RuntimeError(answer.text)
        return dict(answer.json())

    first, answer = await _timed(lambda: post({"image": image}))
    repeated = [(await _timed(lambda: post({"image_id": answer["image_id"]})))[0] for _ in range(5)]
    return {"first click": first, "repeated click": statistics.median(repeated)}


async def _timed(act: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    started = time.perf_counter()
    outcome = await act()
    return time.perf_counter() - started, outcome


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw how many milliseconds more each thing takes."""
    names = list(results["ms"])
    axes.boxplot(
        [results["ms"][name]["more"]["samples"] for name in names], orientation="horizontal"
    )
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(title="This version, less the one before", xlabel="ms")


def main(
    before: Annotated[
        Path, typer.Option(help="Folder of the other version, in which `make bundle` has run.")
    ],
    pairs: Annotated[int, typer.Option(help="How often each thing is done.")] = 9,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write into benchmarks/results/, which git tracks.")
    ] = False,
) -> None:
    """Measure this version beside another one, by turns in one run."""
    console = Console()
    where = report.machine()
    with _server(before) as old, _server(ROOT) as new, console.status("versions"):
        results = asyncio.run(measure(old.rest, new.rest, pairs=pairs))
    report.publish(
        console, "versions", where, results, draw, keep=keep, module="benchmarks.versions"
    )


def _server(checkout: Path) -> contextlib.AbstractContextManager[Endpoints]:
    # An older version opens these whether it is told to or not.
    http, metrics = map(str, ports.free(2))
    return serving(None, checkout.resolve(), TRITON_HTTP_PORT=http, TRITON_METRICS_PORT=metrics)


if __name__ == "__main__":
    typer.run(main)
