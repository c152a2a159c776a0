"""Tasks of the scoring process, for as long as it runs, and threads that work beside it."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

_NICE = 10  # of a thread that steps aside: about a tenth of a busy core

_log = structlog.get_logger()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """A task of the process. One that ends by itself is a fault: it is logged, not hidden until shutdown."""
    task = asyncio.create_task(work)
    task.add_done_callback(_report)
    try:
        yield
    finally:
        while not task.done():
            # Once is not enough: before Python 3.12 wait_for, in which redis-py sends, may swallow a cancellation.
            task.cancel()
            await asyncio.wait([task], timeout=0.1)


def step_aside() -> None:
    """Requests go before the thread that calls this: what it does may come a little later, an answer may not."""
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception():
        _log.critical("a task of the scorer ended", task=task.get_coro(), exc_info=task.exception())
