"""One at a time, in order, and the loop has its turns, too."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from service.scoring import turns
from service.scoring.turns import Turns

Run = Callable[[Callable[[], Awaitable[None]]], Awaitable[list[int | None]]]


async def order(work: Callable[[], Awaitable[None]]) -> list[int | None]:
    """In which six take their turns, None where the loop looked at the network."""
    loop, taking, seen = asyncio.get_running_loop(), Turns(), list[int | None]()

    async def take(number: int) -> None:
        async with taking:
            seen.append(number)
            await work()
            seen.append(number)

    def look() -> None:
        seen.append(None)
        if tasks:
            loop.call_soon(look)

    tasks = [asyncio.create_task(take(number)) for number in range(6)]
    loop.call_soon(look)
    await asyncio.gather(*tasks)
    tasks.clear()
    return seen


async def quick() -> None:
    pass


async def slow() -> None:
    end = time.perf_counter() + turns.SLICE_S
    while time.perf_counter() < end:
        pass


async def waiting() -> None:
    await asyncio.sleep(0)


async def test_the_loop_looks_after_a_slice() -> None:
    seen = await order(slow)
    assert [one for one in seen if one is not None] == [one for number in range(6) for one in (number, number)]
    for number in range(5):
        assert None in seen[seen.index(number) : seen.index(number + 1)]


async def test_a_slice_has_room_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE_S", 60.0)
    assert (await order(quick))[:12] == [one for number in range(6) for one in (number, number)]


async def test_who_waits_within_keeps_his_turn() -> None:
    seen = [one for one in await order(waiting) if one is not None]
    assert seen == [one for number in range(6) for one in (number, number)]


async def test_an_error_ends_a_turn() -> None:
    taking = Turns()
    with pytest.raises(KeyError):
        async with taking:
            raise KeyError
    async with asyncio.timeout(10.0):
        async with taking:
            pass
