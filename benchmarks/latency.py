"""Owns measuring how soon a client hears: the first event of a job, and the end after a cancel."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import httpx
from matplotlib.axes import Axes

from benchmarks import client as rest
from benchmarks.client import Event
from benchmarks.report import summary

# A job is cancelled after this many steps, which are enough to know how long a step takes.
STEPS_BEFORE_CANCEL = 5
LABELS = {
    "submit": "submission answered",
    "first_event": "first event",
    "cancel_answer": "cancel answered",
    "cancelled": "cancelled event",
    "step": "one step",
    "beyond_step": "cancelled minus one step",
}


async def measure(url: str, *, runs: int, size: int) -> dict[str, Any]:
    """Submit and cancels jobs one after the other on an otherwise idle server.

    Returns:
        Milliseconds. `submit`: request sent to task id received. `first_event`: request sent to
        first event received. `cancel_answer`: cancel sent to answered. `cancelled`: cancel sent to
        its event received. `step`: a job's median step. `beyond_step`: `cancelled` minus the job's
        own step.
    """
    samples: dict[str, list[float]] = {}
    async with rest.connect(url) as client:
        await rest.follow(client, await rest.submit(client, rest.edit_request(size, steps=2)))
        for run in range(runs):
            # `run / runs` spreads the cancels over the phases of a step.
            for name, seconds in (await _cancelled_job(client, size, run / runs)).items():
                samples.setdefault(name, []).append(1000 * seconds)
    return {"runs": runs, "size": size, "ms": {name: summary(s) for name, s in samples.items()}}


def step_seconds(events: Sequence[Event]) -> float:
    """Return the median time between the events that end two consecutive steps, in seconds.

    Raises:
        statistics.StatisticsError: there are no two such events.
    """
    ends: dict[int, float] = {}
    for event in events:
        ends.setdefault(event.message["current_step"], event.at)
    return statistics.median(
        ends[step + 1] - ends[step] for step in ends if step > 0 and step + 1 in ends
    )


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the distribution of each latency."""
    latencies = {name: results["ms"][name] for name in reversed(LABELS)}
    axes.boxplot(
        [latency["samples"] for latency in latencies.values()],
        orientation="horizontal",
        tick_labels=[
            f"{LABELS[name]}\n{latency['median']:.1f} ms" for name, latency in latencies.items()
        ],
        whis=(0, 100),
    )
    axes.set(
        title=f"{results['runs']} jobs at {results['size']}²: medians and distributions",
        xlabel="milliseconds",
    )
    axes.axvline(0, color="grey", linewidth=0.5)


async def _cancelled_job(client: httpx.AsyncClient, size: int, phase: float) -> dict[str, float]:
    request = rest.edit_request(size, steps=100)
    sent = time.perf_counter()
    task_id = await rest.submit(client, request)
    submitted = time.perf_counter()
    received: list[Event] = []
    canceller: asyncio.Task[tuple[float, float]] | None = None
    async for event in rest.events(client, task_id):
        received.append(event)
        if canceller is None and event.message["current_step"] >= STEPS_BEFORE_CANCEL:
            delay = phase * step_seconds(received)
            canceller = asyncio.create_task(_cancel(client, task_id, delay))
    if canceller is None or received[-1].message["status"] != "cancelled":
        raise RuntimeError(f"{task_id} should have been cancelled: {received[-1].message}")
    cancel_sent, cancel_answered = await canceller
    cancelled = received[-1].at - cancel_sent
    step = step_seconds(received)
    return {
        "submit": submitted - sent,
        "first_event": received[0].at - sent,
        "cancel_answer": cancel_answered - cancel_sent,
        "cancelled": cancelled,
        "step": step,
        "beyond_step": cancelled - step,
    }


async def _cancel(client: httpx.AsyncClient, task_id: str, delay: float) -> tuple[float, float]:
    await asyncio.sleep(delay)
    sent = time.perf_counter()
    await rest.cancel(client, task_id)
    return sent, time.perf_counter()
