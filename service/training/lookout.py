"""Lookout: notices what the log has lost, and that its server is about to lose something. Training goes on."""

from collections.abc import Callable, Mapping, Sequence

import redis
import structlog

from service.connections import check_server
from service.errors import StreamError
from service.gaps import GapFinder
from service.streams import Entry
from service.telemetry import TrainerMetrics

CHECK_S = 30.0  # between looks at the server's settings: whoever fails over to another finds other ones

_log = structlog.get_logger()


class Lookout:
    """Looks after every read.

    Args:
        client: from `service.connections.connect`.
        streams: that are read.
        window_ms: attribution window.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        client: redis.Redis,
        streams: Sequence[str],
        *,
        window_ms: int,
        metrics: TrainerMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._metrics, self._clock = client, metrics, clock
        self._gaps = GapFinder(client, streams, window_ms=window_ms)
        self._checked_s = 0.0

    def look(self, before: Mapping[str, str], entries: Sequence[Entry]) -> dict[str, str]:
        """Positions from which to go on instead of those that were reached. Raises RedisError.

        Args:
            before: positions before the last read.
            entries: that it gave.
        """
        if not 0.0 <= self._clock() - self._checked_s < CHECK_S:  # or the clock was set back
            self._check()
        gaps = self._gaps.find(before, entries)
        for gap in gaps:
            self._metrics.lost.labels(gap.stream, gap.reason).inc()
            _log.error(f"the log has lost entries: {gap.reason}", stream=gap.stream, goes_on_after=gap.position)
        return {gap.stream: gap.position for gap in gaps}

    def _check(self) -> None:
        """What would have kept us from starting must not end us now: an alarm does more good."""
        self._checked_s = self._clock()
        try:
            check_server(self._client)
        except StreamError as error:
            self._metrics.log_unsafe.set(1)
            _log.error("this server may lose parts of the log", code=error.code, detail=error.detail)
        else:
            self._metrics.log_unsafe.set(0)
