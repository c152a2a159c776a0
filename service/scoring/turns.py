"""Who ranks when: one request after the other, for ranking is computing, and one thread does it best."""

import asyncio
import time
from types import TracebackType

#: Requests are ranked for so long before the event loop looks at the network again: then who has arrived is admitted or
#: refused, and health is answered. To look after each of them, and wake its caller, would take more time in all.
SLICE_S = 0.002


class Turns:
    """A context for one at a time; who comes first enters first."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._spent_s = 0.0  # of the slice
        self._entered = 0.0

    async def __aenter__(self) -> None:
        while self._spent_s >= SLICE_S:
            await asyncio.sleep(0)
        await self._lock.acquire()
        self._entered = time.perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        before, self._spent_s = self._spent_s, self._spent_s + time.perf_counter() - self._entered
        if before < SLICE_S <= self._spent_s:
            asyncio.get_running_loop().call_soon(self._begin_slice)  # goes ahead of all who sleep from now on

    def _begin_slice(self) -> None:
        self._spent_s = 0.0
