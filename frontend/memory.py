"""Owns giving back memory that this process has freed and its allocator keeps."""

from __future__ import annotations

import asyncio

import psutil

from frontend.supervision import Rounds
from model_kit.memory import give_back

LOOK_EACH_S = 5.0
MAY_KEEP_BYTES = 32 * 2**20
"""Beyond the least that this process was seen with, from which on giving back is tried."""


async def run() -> None:
    """Look now and then until this is cancelled, and give back after large work.

    Only looking finds all that was freed: a picture's last bytes go after its request has ended,
    in gRPC's own threads.
    """
    process = psutil.Process()
    rounds = Rounds("memory")
    least = process.memory_info().rss
    while True:
        with rounds.one():
            now = process.memory_info().rss
            least = min(least, now)
            if now - least > MAY_KEEP_BYTES:
                # Off the loop, because it walks through all that is free.
                await asyncio.to_thread(give_back)
        await asyncio.sleep(LOOK_EACH_S)
