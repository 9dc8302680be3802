"""Owns the command line of the benchmarks: `python -m benchmarks all`."""

import sys

if __name__ == "__main__" and sys.argv[1:2] == ["gpu"]:
    # Before all other imports: the machine with a GPU has few packages.
    from benchmarks.gpu.command import main as measure_gpu

    sys.exit(measure_gpu(sys.argv[2:]))

import asyncio
import functools
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import (
    edits,
    engine,
    growth,
    latency,
    masks,
    overhead,
    perf_analyzer,
    regions,
    replicas,
    report,
    runtimes,
    step_cache,
    subscribers,
)
from benchmarks.server import Endpoints, serving

ROOT = Path(__file__).parents[1]
SIZE = 256
MASK_BUNDLE = ROOT / "bundles" / "fastsam"


class Name(StrEnum):
    """What can be measured."""

    EDITS = "edits"
    REGIONS = "regions"
    OVERHEAD = "overhead"
    LATENCY = "latency"
    SUBSCRIBERS = "subscribers"
    PERF_ANALYZER = "perf-analyzer"
    PERF_MASKS = "perf-masks"
    PERF_NETWORK = "perf-network"
    MASKS = "masks"
    RUNTIMES = "runtimes"
    STEP_CACHE = "step-cache"
    ENGINE = "engine"
    REPLICAS = "replicas"
    GROWTH = "growth"
    ALL = "all"


SERVED: dict[Name, tuple[Callable[[Endpoints, Path], dict[str, Any]], report.Draw]] = {
    Name.EDITS: (
        lambda server, _: asyncio.run(
            edits.measure(server.rest, scenes={256: 12, 512: 6}, steps=8)
        ),
        edits.draw,
    ),
    Name.REGIONS: (
        lambda server, _: asyncio.run(
            regions.measure(server.rest, sizes=(512, 1024, 2048), photographs=3, casts=6)
        ),
        regions.draw,
    ),
    Name.OVERHEAD: (
        lambda server, bundle: asyncio.run(
            overhead.measure(server.rest, bundle, pairs=11, steps=20, size=SIZE)
        ),
        overhead.draw,
    ),
    Name.LATENCY: (
        lambda server, _: asyncio.run(latency.measure(server.rest, runs=20, size=SIZE)),
        latency.draw,
    ),
    Name.SUBSCRIBERS: (
        lambda server, _: asyncio.run(
            subscribers.measure(server.rest, subscribers=200, steps=20, size=SIZE)
        ),
        subscribers.draw,
    ),
    Name.PERF_ANALYZER: (
        lambda server, _: perf_analyzer.measure(
            server.grpc,
            perf_analyzer.edits(SIZE, steps=8),
            requests=12,
            concurrencies=(1, 2, 4),
        ),
        perf_analyzer.draw,
    ),
    Name.PERF_MASKS: (
        lambda server, _: perf_analyzer.measure(
            server.grpc, perf_analyzer.masks(1024), requests=400, concurrencies=(1, 2, 4, 16)
        ),
        perf_analyzer.draw,
    ),
    Name.PERF_NETWORK: (
        lambda server, _: perf_analyzer.measure(
            server.grpc,
            perf_analyzer.networks(runtimes.image_side(MASK_BUNDLE)),
            requests=200,
            concurrencies=(1, 2, 4, 16),
        ),
        perf_analyzer.draw,
    ),
}

# These start what they need. A server beside them would want the same cores.
ALONE: dict[Name, tuple[Callable[[Path], dict[str, Any]], report.Draw]] = {
    # Its server has a network of FastSAM-s size.
    Name.MASKS: (lambda _: masks.measure(pairs=21, throughput_s=8), masks.draw),
    Name.RUNTIMES: (lambda _: runtimes.measure(MASK_BUNDLE, rounds=21), runtimes.draw),
    Name.STEP_CACHE: (
        lambda bundle: step_cache.measure(
            bundle, thresholds=(0.05, 0.1, 0.2, 0.3), scenes=3, steps=20, size=SIZE
        ),
        step_cache.draw,
    ),
    Name.ENGINE: (lambda bundle: engine.measure(bundle, rounds=7, size=SIZE), engine.draw),
    Name.REPLICAS: (
        lambda _: asyncio.run(
            replicas.measure(runs=20, followers=200, deaths=2, outages_s=(5.0, 30.0))
        ),
        replicas.draw,
    ),
    Name.GROWTH: (
        lambda _: asyncio.run(growth.measure(sizes=(10, 1000, 100_000), rounds=50)),
        growth.draw,
    ),
}


def main(
    name: Annotated[Name, typer.Argument(help="What to measure.")] = Name.ALL,
    url: Annotated[
        str | None,
        typer.Option(help="REST address of a running server; else one is started."),
    ] = None,
    triton_url: Annotated[
        str, typer.Option(help="gRPC address of that server's Triton, host:port.")
    ] = "127.0.0.1:8001",
    bundle: Annotated[Path, typer.Option(help="The bundle that the server has loaded.")] = ROOT
    / "bundles"
    / "demo",
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Write into benchmarks/results/, which git tracks."),
    ] = False,
) -> None:
    """Measure a server, print what was found, and write dated JSON and plots to reports/."""
    console = Console()

    def publish(each: Name, measure: Callable[[], dict[str, Any]], draw: report.Draw) -> None:
        where = report.machine()
        with console.status(each):
            results = measure()
        console.rule(each)
        report.publish(console, each, where, results, draw, keep=keep)

    chosen = [each for each in Name if name in (each, Name.ALL)]
    if served := [each for each in SERVED if each in chosen]:
        # The mask network alone is not for clients; a benchmark measures it all the same.
        running = Endpoints(url, triton_url) if url else None
        with serving(running, TRITON_UNRESTRICTED="true") as server:
            for each in served:
                measure, draw = SERVED[each]
                publish(each, functools.partial(measure, server, bundle), draw)
    for each in ALONE:
        if each in chosen:
            measure_alone, draw = ALONE[each]
            publish(each, functools.partial(measure_alone, bundle), draw)


if __name__ == "__main__":
    typer.run(main)
