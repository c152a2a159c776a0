"""A deadline that holds although nobody looks at the clock, and a caller who leaves."""

import asyncio
import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.requests import ClientDisconnect

from service.errors import Unavailable
from service.scoring.patience import Patience


class Somebody:
    on_leave: Callable[[], object] | None = None

    def leave(self) -> None:
        if self.on_leave is not None:
            self.on_leave()


@pytest.fixture
def exceeded() -> Counter:
    return Counter("exceeded", "", registry=CollectorRegistry())


async def test_what_takes_too_long_is_stopped_and_counted_once(exceeded: Counter) -> None:
    with pytest.raises(Unavailable, match=r"longer than 0\.01 s") as caught:
        async with Patience(0.01, None, exceeded):
            await asyncio.sleep(30.0)
    assert caught.value.code == "deadline_exceeded"
    assert exceeded._value.get() == 1


async def test_a_deadline_that_passed_while_the_loop_was_busy_is_seen(exceeded: Counter) -> None:
    async with Patience(0.01, None, exceeded) as patience:
        patience.check()
        time.sleep(0.02)  # as computing does
        with pytest.raises(Unavailable):
            patience.check()
    assert exceeded._value.get() == 1


async def test_who_leaves_is_not_worked_for(exceeded: Counter) -> None:
    caller = Somebody()
    asyncio.get_running_loop().call_soon(caller.leave)
    with pytest.raises(ClientDisconnect):
        async with Patience(30.0, caller, exceeded):
            await asyncio.sleep(30.0)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    assert exceeded._value.get() == 0


async def test_who_leaves_afterwards_disturbs_nothing(exceeded: Counter) -> None:
    caller = Somebody()
    async with Patience(30.0, caller, exceeded):
        await asyncio.sleep(0)
    caller.leave()
    await asyncio.sleep(0)


async def test_a_shutdown_is_no_caller_who_left(exceeded: Counter) -> None:
    async def work() -> None:
        async with Patience(30.0, Somebody(), exceeded):
            await asyncio.sleep(30.0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
