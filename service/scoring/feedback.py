"""POST /v1/events without HTTP: what callers report goes to the log, and each event gets its own result."""

import asyncio
import math
import time

import msgspec
import redis.asyncio
from msgspec import Raw
from redis.exceptions import RedisError

from service.appends import append_events
from service.connections import refusal, unavailable
from service.events import Event
from service.scoring import schemas
from service.scoring.schemas import EventResult, EventsResponse
from service.streams import StreamNames
from service.telemetry import ScorerMetrics

LONGEST_AHEAD_S = 300.0  # a clock may be a little wrong; one that is more would spoil every window it touches

_event = msgspec.json.Decoder(Event)


class Feedback:
    """Takes posted events.

    Args:
        client: of the log.
        names: its streams.
        max_events: of one batch.
        remember_s: how long an event id is known; its repetition is a duplicate for so long.
        timeout_s: how long Redis may take.
        maxlen: about how many entries the streams keep.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        names: StreamNames,
        *,
        max_events: int,
        remember_s: float,
        timeout_s: float,
        maxlen: int,
        metrics: ScorerMetrics,
    ) -> None:
        self._client, self._names, self._metrics = client, names, metrics
        self._max_events, self._maxlen = max_events, maxlen
        self._remember_s, self._timeout_s = remember_s, timeout_s

    async def post(self, body: bytes, *, within_s: float = math.inf) -> bytes:
        """The response to a batch. An event is accepted only when Redis has it.

        Args:
            within_s: how long Redis may take this time, at most `timeout_s`.

        Raises:
            ServiceError: of a wrong batch, or log_unavailable, log_full: then the same batch may be sent again, and an
                event that did reach the log is a duplicate.
        """
        read = [_read(raw) for raw in schemas.decode_events(body, max_events=self._max_events)]
        added = iter(await self._append([one for one in read if isinstance(one, Event)], within_s))
        results = []
        for one in read:
            if isinstance(one, Event):
                kind: str = one.type
                result = EventResult(id=one.id, result="accepted" if next(added) else "duplicate")
            else:
                kind, result = "unknown", one
            self._metrics.events.labels(kind, result.result).inc()
            results.append(result)
        return schemas.encode(EventsResponse(results=results))

    async def _append(self, events: list[Event], within_s: float) -> list[bool]:
        if not events:
            return []
        try:
            async with asyncio.timeout(min(self._timeout_s, within_s)):
                return await append_events(self._client, self._names, events, self._remember_s, maxlen=self._maxlen)
        except (RedisError, TimeoutError) as error:
            self._metrics.log_errors.labels(refusal(error)).inc()
            raise unavailable(error) from None


def _read(raw: Raw) -> Event | EventResult:
    """The event, or why it is rejected."""
    try:
        event = _event.decode(raw)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        fault = schemas.invalid(error, "invalid_event")
        detail = f"{fault.path}: {fault.detail}" if fault.path else fault.detail
        return EventResult(id=schemas.id_of(raw), result="rejected", code="invalid_event", detail=detail)
    if event.time and event.time.timestamp() > time.time() + LONGEST_AHEAD_S:
        detail = f"time lies more than {LONGEST_AHEAD_S:g} s ahead of the service's clock"
        return EventResult(id=event.id, result="rejected", code="event_time", detail=detail)
    return event
