from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

from frontend import memory

if TYPE_CHECKING:
    import pytest

MB = 2**20


async def test_memory_is_given_back_as_long_as_more_is_held_than_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if giving back has helped nothing before: the bytes may have been in use then."""
    sizes = iter([100, 90, 121, 123, 150, 150, 60, 92, 93])
    given_back: list[int] = []
    looked = [0]
    all_seen = asyncio.Event()

    def memory_info() -> SimpleNamespace:
        if (size := next(sizes, None)) is None:
            all_seen.set()
            size = 60
        looked[0] = size
        return SimpleNamespace(rss=size * MB)

    monkeypatch.setattr(
        "frontend.memory.psutil.Process", lambda: SimpleNamespace(memory_info=memory_info)
    )
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(looked[0]))
    monkeypatch.setattr(memory, "LOOK_EACH_S", 0)
    task = asyncio.create_task(memory.run())
    await asyncio.wait_for(all_seen.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert given_back == [123, 150, 150, 93]
