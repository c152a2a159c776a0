"""Requests that wait at the same time are computed together: one queue, one thread that drives the device.

The oldest request always goes next. Younger ones of its group go with it, in their order, until the first that does not
fit. While the device computes, the next batch gathers; an idle device lingers for at most `wait_s`.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np

from models.types import Array, Batch, Scores
from service.errors import Unavailable
from service.scoring.engines import SeededNoise
from service.telemetry import ScorerMetrics


class Request(NamedTuple):
    """The arguments of `Engine.submit`."""

    batch: Batch
    noise: SeededNoise
    lambda_: float
    impressions: Array

    @property
    def rows(self) -> int:
        """B."""
        return len(self.impressions)

    def part(self, rows: slice) -> "Request":
        """Some of its candidates. Each is scored by itself, so that parts score as the whole."""
        batch = self.batch._replace(item_index=self.batch.item_index[rows], item_weight=self.batch.item_weight[rows])
        return Request(batch, self.noise.part(rows), self.lambda_, self.impressions[rows])


class Group(Protocol):
    """What requests must share to be computed together; told apart by identity."""

    def run(self, requests: Sequence[Request]) -> Sequence[Scores]:
        """Their answers, in their order. Called by one thread at a time."""
        ...


#: Of a batch, unless its rows are used up before. Noise is drawn for so many, whether they are there or not.
MAX_REQUESTS = 32


@dataclass(frozen=True, eq=False)
class _Job:
    group: Group
    request: Request
    # Cancelled with the task that waits for it: so a deadline, or a caller that left, reaches the queue.
    future: Future[Scores] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Open it with `async with`; on leaving, what is queued is answered first.

    Args:
        wait_s: how long an idle device waits for company, from the oldest request's arrival.
        max_rows: of a batch. A larger request is divided; its parts follow each other.
        max_requests: of a batch.
        grace_s: what is still queued so long after closing is refused.
    """

    def __init__(
        self,
        *,
        wait_s: float,
        max_rows: int,
        max_requests: int = MAX_REQUESTS,
        grace_s: float,
        metrics: ScorerMetrics,
    ) -> None:
        self.max_rows, self.max_requests = max_rows, max_requests
        self._wait_s, self._grace_s, self._metrics = wait_s, grace_s, metrics
        self._queue: deque[_Job] = deque()
        self._closed = False
        self._changed = threading.Condition()  # guards these two
        # Not waited for at exit: a device that hangs must not hold up the end of the process.
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, self._grace_s)
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_stopping())

    async def submit(self, group: Group, request: Request) -> Scores:
        """The group's answer.

        Raises:
            Unavailable: not_ready, when closed.
            Exception: what the group raised.
        """
        cuts = range(0, request.rows, self.max_rows)
        jobs = [_Job(group, request.part(slice(start, start + self.max_rows))) for start in cuts]
        with self._changed:
            if self._closed:
                raise _stopping()
            self._queue.extend(jobs)
            self._changed.notify()
        parts = await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        return parts[0] if len(parts) == 1 else Scores(*map(np.concatenate, zip(*parts, strict=True)))

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if jobs:
                self._answer(jobs)

    def _next(self) -> list[_Job] | None:
        """The next batch, without who gave up. None when closed and all are answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            left = self._queue[0].arrived + self._wait_s - time.monotonic()
            self._changed.wait_for(lambda: self._closed or self._is_full(), timeout=left)
            return self._take() if self._queue else None  # refused meanwhile

    def _is_full(self) -> bool:
        """Whether waiting could bring nothing more into the next batch."""
        group = self._queue[0].group
        rows = [job.request.rows for job in self._queue if job.group is group]
        return len(rows) >= self.max_requests or sum(rows) >= self.max_rows

    def _take(self) -> list[_Job]:
        group, taken, rows = self._queue[0].group, list[_Job](), 0
        for job in [job for job in self._queue if job.group is group]:
            if len(taken) == self.max_requests or rows + job.request.rows > self.max_rows:
                break
            self._queue.remove(job)
            if job.future.set_running_or_notify_cancel():
                taken.append(job)
                rows += job.request.rows
            else:
                self._metrics.batch_dropped.inc()
        return taken

    def _answer(self, jobs: Sequence[_Job]) -> None:
        begun, metrics = time.monotonic(), self._metrics
        for job in jobs:
            metrics.batch_wait.observe(begun - job.arrived)
        metrics.batch_requests.observe(len(jobs))
        metrics.batch_rows.observe(sum(job.request.rows for job in jobs))
        try:
            answers = jobs[0].group.run([job.request for job in jobs])
        except Exception as error:  # a fault of the device is a fault of every request in the batch
            for job in jobs:
                job.future.set_exception(error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                job.future.set_result(answer)


def _stopping() -> Unavailable:
    return Unavailable("not_ready", "the scorer is shutting down")
