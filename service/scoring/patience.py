"""How long the caller of one request waits: until a deadline, and while he is there."""

import asyncio
from types import TracebackType
from typing import Any, Protocol, Self

from prometheus_client import Counter
from starlette.requests import ClientDisconnect

from service.errors import Unavailable


class Caller(Protocol):
    """The other end of a connection."""

    gone: bool
    on_leave: Any  # called without arguments when he goes; None: nobody minds


class Patience:
    """A context in which work is dropped when nobody waits for it any more.

    Args:
        limit_s: from now.
        caller: None where the server does not tell who goes.
        exceeded: counts those who waited in vain.
    """

    def __init__(self, limit_s: float, caller: Caller | None, exceeded: Counter) -> None:
        self._limit_s, self._caller, self._exceeded = limit_s, caller, exceeded
        self._timeout = asyncio.timeout(limit_s)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        task = asyncio.current_task()
        if self._caller is not None and task is not None:
            self._caller.on_leave = task.cancel
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises Unavailable deadline_exceeded, or ClientDisconnect."""
        if self._caller is not None:
            self._caller.on_leave = None
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._refusal() from None
        if kind is asyncio.CancelledError and self._caller is not None and self._caller.gone:
            task = asyncio.current_task()
            assert task is not None  # it was cancelled
            task.uncancel()
            raise ClientDisconnect from None

    def check(self) -> None:
        """Raises Unavailable deadline_exceeded.

        For who computes without looking at the clock: a timer goes off only when the loop has time for it.
        """
        ends = self._timeout.when()
        if ends is not None and asyncio.get_running_loop().time() >= ends:
            raise self._refusal()

    def _refusal(self) -> Unavailable:
        self._exceeded.inc()
        return Unavailable("deadline_exceeded", f"it waited longer than {self._limit_s:g} s")
