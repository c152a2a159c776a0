"""The way of served records to the log: no request waits for Redis, and Redis may be gone for a while."""

import asyncio
import contextlib
from collections import deque

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from service.appends import append_served
from service.connections import refusal
from service.events import Served, encode
from service.streams import StreamNames
from service.telemetry import ScorerMetrics

#: Of one round trip. To send so much takes a millisecond, for which rankings wait; half of it goes for a single record.
BATCH, BATCH_BYTES = 64, 512 * 1024  # records; the last of them may go beyond the bytes
LINGER_S = 0.05  # records gather so long, so that under load one round trip carries many
IDLE_S = 1.0  # with nothing to write, Redis is asked so often whether it is there
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

_log = structlog.get_logger()


class Outbox:
    """A bounded queue of encoded records, and the one task that empties it.

    When it is full the newest record is dropped: its caller, and no other, is still here to be told, and the records
    before it are those whose clicks are already on their way.

    Args:
        client: of the log.
        names: its streams.
        capacity: records that wait, at most.
        max_bytes: of them. The last may go beyond: see docs/operations.md for how large one can be.
        maxlen: about how many entries the streams keep.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        names: StreamNames,
        *,
        capacity: int,
        max_bytes: int,
        maxlen: int,
        metrics: ScorerMetrics,
    ) -> None:
        #: Whether Redis answered when it was last asked.
        self.available = False
        self._client, self._names = client, names
        self._capacity, self._max_bytes, self._maxlen, self._metrics = capacity, max_bytes, maxlen, metrics
        self._queue: deque[tuple[str, bytes]] = deque()  # each with its stream
        self._bytes = 0
        self._filled = asyncio.Event()
        metrics.served_queue.set_function(lambda: len(self._queue))

    def put(self, record: Served) -> bool:
        """False where the queue is full: the record is dropped."""
        if len(self._queue) >= self._capacity or self._bytes >= self._max_bytes:
            self._metrics.served_records.labels("dropped").inc()
            return False
        content = encode(record)
        self._queue.append((self._names.served(record.request_id), content))
        self._bytes += len(content)
        self._filled.set()
        return True

    async def run(self) -> None:
        """Writes what comes, until cancelled; `flush` writes what is left then."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await (self._drain() if self._queue else self._client.ping())
                self._tell(None)
                pause_s = FIRST_PAUSE_S
                await self._gather()
            except RedisError as error:
                self._tell(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)

    async def flush(self, grace_s: float) -> None:
        """Writes what is left, for at most `grace_s`; what is left then is lost, and counted."""
        try:
            async with asyncio.timeout(grace_s):
                while self._queue:
                    try:
                        await self._drain()
                    except RedisError:
                        await asyncio.sleep(FIRST_PAUSE_S)
        except TimeoutError:
            self._metrics.served_records.labels("dropped").inc(len(self._queue))
            _log.error("served records lost at shutdown", records=len(self._queue))

    async def _drain(self) -> None:
        while self._queue:
            batch = self._next()
            await append_served(self._client, batch, self._maxlen)
            for _ in batch:  # only now: a record leaves the queue when Redis has it
                self._bytes -= len(self._queue.popleft()[1])
            self._metrics.served_records.labels("written").inc(len(batch))

    def _next(self) -> list[tuple[str, bytes]]:
        """The oldest records: as many as one round trip takes."""
        batch: list[tuple[str, bytes]] = []
        size = 0
        for entry in self._queue:
            if len(batch) == BATCH or size >= BATCH_BYTES:
                break
            batch.append(entry)
            size += len(entry[1])
        return batch

    async def _gather(self) -> None:
        """Until there are records, some time more for others to join them, and never longer than `IDLE_S`."""
        if not self._queue:
            self._filled.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._filled.wait()
                await asyncio.sleep(LINGER_S)

    def _tell(self, error: RedisError | None) -> None:
        """Notes whether Redis answers, and logs it when that changed."""
        up = error is None
        self._metrics.log_up.set(up)
        if error:
            self._metrics.log_errors.labels(refusal(error)).inc()
        if up and not self.available:
            _log.info("the log is reachable")
        elif error and self.available:
            _log.warning("the log is unreachable: served records wait", error=str(error), waiting=len(self._queue))
        self.available = up
