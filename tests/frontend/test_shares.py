from __future__ import annotations

import asyncio
import collections
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend import shares
from frontend.errors import TooMuchError, UnavailableError
from frontend.shares import Budgets, Holdings, Rotation, Turns
from tests.fakes.clock import Clock
from tests.fakes.owners import owner


def test_one_owner_may_hold_a_fraction_and_all_together_the_whole() -> None:
    holdings = Holdings("things", 4, 0.5)
    with contextlib.ExitStack() as stack:
        for name in ("a", "a", "b"):
            stack.enter_context(holdings.held(name))
        with pytest.raises(TooMuchError, match="This client has as many things as one may: 2"):
            stack.enter_context(holdings.held("a"))
        stack.enter_context(holdings.held("c"))
        with pytest.raises(UnavailableError, match="The server is busy with things"):
            stack.enter_context(holdings.held("d"))
    assert holdings.sum == 0
    with holdings.held("a"):
        assert holdings.sum == 1


def test_the_whole_may_change_and_who_holds_more_keeps_it() -> None:
    holdings = Holdings("things", 4, 0.5)
    with contextlib.ExitStack() as stack:
        for name in ("a", "a", "b"):
            stack.enter_context(holdings.held(name))
        holdings.resize(2)
        assert holdings.sum == 3
        with pytest.raises(UnavailableError):
            stack.enter_context(holdings.held("c"))
        holdings.resize(8)
        for _ in range(2):
            stack.enter_context(holdings.held("a"))
        with pytest.raises(TooMuchError, match="as one may: 4"):
            stack.enter_context(holdings.held("a"))


async def place(turns: Turns, name: str, order: list[str], go_on: asyncio.Event) -> None:
    async with turns.place(name):
        order.append(name)
        await go_on.wait()


async def test_a_free_place_goes_to_the_next_owner() -> None:
    turns, order, go_on = Turns(1, Holdings("x", 100, 1)), list[str](), asyncio.Event()
    names = ["a"] * 4 + ["b"] * 2 + ["c"]
    tasks = [asyncio.create_task(place(turns, name, order, go_on)) for name in names]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "b", "a", "a"]
    await place(turns, "d", order, go_on)  # it is free again


async def test_one_who_leaves_keeps_no_place() -> None:
    holdings = Holdings("x", 100, 1)
    turns, order, go_on = Turns(1, holdings), list[str](), asyncio.Event()
    first, gone, given, last = (
        asyncio.create_task(place(turns, name, order, go_on)) for name in "abcd"
    )
    while holdings.sum < 3:
        await asyncio.sleep(0)
    gone.cancel()  # while it waits
    await asyncio.wait([gone])
    go_on.set()
    while first not in (await asyncio.wait([first]))[0]:
        pass
    given.cancel()  # it may have got the place and not have run yet
    await asyncio.wait([given, last])
    assert not last.cancelled()
    assert order[-1] == "d"
    await asyncio.wait_for(place(turns, "e", order, go_on), 30)
    assert holdings.sum == 0


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("first", ["holder", "waiter"])
@pytest.mark.parametrize("others", ["", "a", "b"], ids=["nobody", "own", "stranger"])
async def test_a_holder_and_a_waiter_who_leave_at_once_keep_no_place(
    places: int, first: str, others: str
) -> None:
    holdings = Holdings("x", 100, 1)
    turns, order, go_on = Turns(places, holdings), list[str](), asyncio.Event()
    names = ["a"] * (places + 1) + list(others)
    tasks = [asyncio.create_task(place(turns, name, order, go_on)) for name in names]
    while holdings.sum < 1 + len(others):
        await asyncio.sleep(0)
    leaving = [tasks[0], tasks[places]]
    for task in leaving if first == "holder" else reversed(leaving):
        task.cancel()
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks[1:places], *tasks[places + 1 :])
        await asyncio.gather(*(place(turns, "c", order, go_on) for _ in range(places + 1)))
    assert holdings.sum == 0


@given(
    places=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from("abc-!."), st.integers(0, 5)), min_size=30),
)
def test_no_place_is_lost_however_owners_come_and_leave(
    places: int, steps: list[tuple[str, int]]
) -> None:
    """Owners come (a, b, c), go on (-) and are cancelled (!), and now and then the loop turns."""

    async def walk() -> None:
        turns = Turns(places, Holdings("x", 100, 1))
        held = collections.Counter[str]()
        live: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def stay(owner: str, go_on: asyncio.Event) -> None:
            async with turns.place(owner):
                held[owner] += 1
                try:
                    await go_on.wait()
                finally:
                    held[owner] -= 1

        def come(owner: str) -> None:
            go_on = asyncio.Event()
            live.append((asyncio.create_task(stay(owner, go_on)), go_on))

        async def check() -> None:
            for _ in range(3 * len(live) + 3):  # until each has run that can
                await asyncio.sleep(0)
            live[:] = [each for each in live if not each[0].done()]
            assert held.total() == min(len(live), places)

        for step, number in steps:
            if step in "abc":
                come(step)
            elif step == "." or not live:
                await check()
            else:
                task, go_on = live[number % len(live)]
                if step == "-":
                    go_on.set()
                else:
                    task.cancel()
        await check()
        for _, go_on in live:
            go_on.set()
        await check()
        assert not live
        for _ in range(places + 1):  # as many as at first, and no more
            come("d")
        await check()

    asyncio.run(walk())


async def test_owners_take_turns_beside_some_who_leave() -> None:
    holdings = Holdings("x", 100, 1)
    turns, order, go_on = Turns(1, holdings), list[str](), asyncio.Event()
    names = "aaabbbccc"
    tasks = [asyncio.create_task(place(turns, name, order, go_on)) for name in names]
    while holdings.sum < len(names) - 1:
        await asyncio.sleep(0)
    for number in (0, 3, 6):  # the holder, and the next in turn of the others
        tasks[number].cancel()
    go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks, return_exceptions=True)
    # Nobody's turn went to one who had left.
    assert order == list("abcabca")


def test_turns_of_very_many_owners_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_OWNERS", 2)
    rotation = Rotation()
    for name in "abc":
        rotation.note(name)
    assert [rotation.last_turn(name) for name in "abc"] == [0, 2, 3]
    assert rotation.next("cb") == "b"


def test_a_budget_is_spent_and_comes_back() -> None:
    clock = Clock(0.0)
    budgets, ann = Budgets(clock), owner("key:ann", per_minute=6)
    budgets.check(ann)
    budgets.spend(ann, 16)  # dearer than a whole minute: it is let through once
    with pytest.raises(TooMuchError, match="6 usual edits a minute") as caught:
        budgets.check(ann)
    assert caught.value.retry_after_s == pytest.approx(101)
    clock.now = 101
    budgets.check(ann)
    clock.now = 10_000  # never more than a minute's
    budgets.spend(ann, 6)
    with pytest.raises(TooMuchError):
        budgets.check(ann)
    for _ in range(3):
        budgets.spend(owner("key:bob"), 10**9)
        budgets.check(owner("key:bob"))
