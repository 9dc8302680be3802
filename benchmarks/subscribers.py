"""Owns measuring many subscribers on one job: who gets every event, and how far apart in time."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import httpx
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks import client as rest
from benchmarks.client import Event
from benchmarks.report import summary


async def measure(url: str, *, subscribers: int, steps: int, size: int) -> dict[str, Any]:
    """Subscribe to a job while it still waits behind another, then let it run.

    Returns:
        The job's events, the number of missed or repeated ones of all subscribers, and the
        milliseconds from first to last receipt of every event after all had subscribed.
    """
    async with rest.connect(url) as client:
        blocker = await rest.submit(client, rest.edit_request(size, steps=100))
        task_id = await rest.submit(client, rest.edit_request(size, steps))
        connected, ended = asyncio.Barrier(subscribers + 1), asyncio.Barrier(subscribers)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(subscribe(client, task_id, connected, ended))
                for _ in range(subscribers)
            ]
            await connected.wait()
            await rest.cancel(client, blocker)
        received = [task.result() for task in tasks]
    live_from = 1 + max(events[0].number for events in received)
    spreads = receipt_spreads(received, live_from)
    return {
        "subscribers": subscribers,
        "steps": steps,
        "size": size,
        "events": received[0][-1].number,
        "ended": sorted({events[-1].message["status"] for events in received}),
        "missed_or_repeated": sum(map(out_of_sequence, received)),
        "spread_ms": summary([1000 * spread for spread in spreads]),
    }


async def subscribe(
    client: httpx.AsyncClient, task_id: str, connected: asyncio.Barrier, ended: asyncio.Barrier
) -> list[Event]:
    """Follow a job to its end beside others, all of whom wait for each other twice.

    Args:
        client: of the server.
        task_id: the job.
        connected: is passed with the first event.
        ended: is passed with the last event.
    """
    received: list[Event] = []
    async for event in rest.events(client, task_id):
        received.append(event)
        if len(received) == 1:
            await connected.wait()
        if event.terminal:
            # Closing a connection costs this client more than an event does. So all note the
            # time of the last event before anyone closes.
            await ended.wait()
    return received


def out_of_sequence(events: Sequence[Event]) -> int:
    """Count the places where a stream's numbers do not rise by one."""
    numbers = (event.number for event in events)
    return sum(later != earlier + 1 for earlier, later in itertools.pairwise(numbers))


def receipt_spreads(received: Sequence[Sequence[Event]], live_from: int) -> list[float]:
    """Return the seconds from the first to the last receipt of each event.

    Args:
        received: each subscriber's events.
        live_from: the first event number that counts; earlier events were replayed to late
            subscribers.
    """
    receipts: dict[int, list[float]] = {}
    for events in received:
        for event in events:
            if event.number >= live_from:
                receipts.setdefault(event.number, []).append(event.at)
    return [max(times) - min(times) for _, times in sorted(receipts.items())]


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the spread of every event."""
    spreads = results["spread_ms"]
    axes.plot(range(1, len(spreads["samples"]) + 1), spreads["samples"], "o-")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        title=f"{results['subscribers']} subscribers, {results['events']} events: "
        f"median spread {spreads['median']:.1f} ms",
        xlabel="live event",
        ylabel="first to last receipt (ms)",
        ylim=(0, None),
    )
