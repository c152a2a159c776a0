"""How long the caller of one request waits: until a deadline, and while he is there."""

import asyncio
from types import TracebackType
from typing import Any, Protocol, Self

from prometheus_client import Counter
from starlette.requests import ClientDisconnect

from service.errors import Unavailable


class Caller(Protocol):
    """The other end of a connection."""

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
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + limit_s
        self._over: Exception | None = None  # why

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = self._loop.call_at(self._ends, self._on_deadline)
        if self._caller is not None:
            self._caller.on_leave = self._on_leave
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises Unavailable deadline_exceeded, or ClientDisconnect."""
        self._timer.cancel()
        if self._caller is not None:
            self._caller.on_leave = None
        if self._over is not None and self._task is not None:
            cancelled_by_others = self._task.uncancel()
            if kind is asyncio.CancelledError and not cancelled_by_others:
                raise self._over from None

    def check(self) -> None:
        """Raises Unavailable deadline_exceeded.

        For who computes without looking at the clock: a timer goes off only when the loop has time for it.
        """
        if self._loop.time() >= self._ends:
            raise self._refusal()

    def left_s(self) -> float:
        """For who waits on while the context is over."""
        return max(0.0, self._ends - self._loop.time())

    def _on_deadline(self) -> None:
        self._stop(self._refusal())

    def _on_leave(self) -> None:
        self._stop(ClientDisconnect())

    def _stop(self, why: Exception) -> None:
        if self._over is None and self._task is not None:
            self._over = why
            self._task.cancel()

    def _refusal(self) -> Unavailable:
        self._exceeded.inc()
        return Unavailable("deadline_exceeded", f"it waited longer than {self._limit_s:g} s")
