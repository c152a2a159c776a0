"""Worker: read -> feed -> publish. The one place of the trainer that meets Redis and the clock.

Nothing is acknowledged anywhere: the position travels in the version, so whatever happens between two of them happens
again after a restart, with the same result.
"""

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog
from redis.exceptions import RedisError

from models.metrics import log_loss
from service.appends import append_batch
from service.checkpoints import Manifest
from service.connections import check_server
from service.errors import CheckpointError
from service.events import Announcement, DeadLetter, encode
from service.streams import START, Entry, LogReader, StreamNames
from service.telemetry import TrainerMetrics
from service.training.outcome import Outcome, Progress
from service.training.publisher import Publisher
from service.training.trainer import Trainer

T = TypeVar("T")

BLOCK_MS = 500  # of a read; also about how long a stop may take
DEAD_LETTERS = 10_000  # about so many are kept
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0  # between attempts while Redis is gone

_log = structlog.get_logger()


class Worker:
    """Drives a trainer.

    Args:
        trainer: fresh.
        publisher: of that trainer.
        client: from `service.connections.connect`.
        names: of the streams.
        maxlen: about how many announcements Redis keeps.
        publish_interval_s: between versions, where anything was learned.
        stop: ends `run` when set, from whichever thread.
        clock: Unix time in seconds.
        observe: is shown every outcome.
    """

    def __init__(
        self,
        *,
        trainer: Trainer,
        publisher: Publisher,
        client: redis.Redis,
        names: StreamNames,
        maxlen: int,
        publish_interval_s: float,
        metrics: TrainerMetrics,
        stop: threading.Event,
        clock: Callable[[], float],
        observe: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._trainer, self._publisher, self._metrics = trainer, publisher, metrics
        self._client, self._names, self._maxlen = client, names, maxlen
        self._reader = LogReader(client, names, redated=self._redated)
        self._interval_s, self._stop, self._clock = publish_interval_s, stop, clock
        self._observe = observe
        self._total, self._unpublished = Progress(), Progress()
        self._started, self._published_s = False, 0.0
        self._reachable = True
        self._trimmed: dict[str, str] = {}  # stream -> our position when it was last found trimmed

    def run(self, *, burst: bool = False) -> Progress:
        """Trains until `stop` is set, or with `burst` until the log is read to its end. Then publishes what is left.

        May be called again, and goes on where it was. Returns the sums over all calls.

        Raises:
            CheckpointError: as `Publisher.start`, and `Publisher.publish`.
            StreamError: this server cannot hold the log.
            OSError: the first or the last version could not be written.
        """
        if not self._started:
            self._start()
        while not self._stop.is_set():
            entries = self._read()
            self._feed(entries)
            lag = self._lag()
            if self._clock() >= self._published_s + self._interval_s:
                self._publish()
            if burst and not entries and not any(lag.values()):
                break
        self._publish()
        if self._unpublished.steps:
            raise OSError("the last version could not be written; a restart learns it again from the one before")
        return self._total

    def _start(self) -> None:
        """A version comes first: with it the scorers can serve, whether Redis is there or not."""
        self._announce(self._publisher.start(now_ms=self._now_ms()))
        self._published_s = self._clock()
        self._started = True
        if warning := self._reach(lambda: check_server(self._client)):
            _log.warning(warning)

    def _read(self) -> list[Entry]:
        positions = dict(self._trainer.positions)
        entries = self._reach(lambda: self._reader.read(positions, block_ms=BLOCK_MS)) or []
        # Asked after the read: what was removed before it is seen now, and nothing can be missed.
        for stream in self._reach(lambda: self._reader.trimmed(positions)) or []:
            if self._trimmed.get(stream) != positions.get(stream, START):
                self._trimmed[stream] = positions.get(stream, START)
                self._metrics.trimmed.labels(stream).inc()
                _log.error("entries were removed before they were read", stream=stream, after=self._trimmed[stream])
        return entries

    def _feed(self, entries: list[Entry]) -> None:
        outcome = self._trainer.feed(entries)
        self._set_aside(outcome.dead_letters)
        self._total.add(outcome)
        self._total.click_times_ms.clear()  # of use to a version alone, and a worker may run for years
        self._unpublished.add(outcome)
        self._publisher.guard.observe(outcome.predictions)
        count(self._metrics, self._trainer, entries, outcome)
        if self._observe:
            self._observe(outcome)

    def _publish(self) -> None:
        """Publishes, if anything was learned. A version that cannot be written is tried again an interval later."""
        if not self._unpublished.steps:
            return
        self._published_s = self._clock()
        try:
            with self._metrics.publish_seconds.time():
                manifest = self._publisher.publish(self._unpublished, now_ms=self._now_ms())
        except (OSError, CheckpointError) as error:
            self._metrics.publishes.labels("failed").inc()
            _log.error("version not published", version=self._trainer.learner.step, error=str(error))
            if isinstance(error, CheckpointError):  # neither weights that diverged nor a lost lane come back
                raise
            return
        self._unpublished = Progress()
        if tell(self._metrics, self._publisher, manifest) == "published":
            self._announce(manifest)

    def _announce(self, manifest: Manifest) -> None:
        """Wakes the scorers. They would find the version anyway, so a failure is only noted."""
        self._metrics.published_version.set(manifest.version)
        content = encode(Announcement(lane=manifest.lane, version=manifest.version))
        try:
            append_batch(self._client, [(self._names.models, content, None)], maxlen=self._maxlen)
        except RedisError as error:
            _log.warning("version not announced", version=manifest.version, error=str(error))

    def _set_aside(self, letters: list[DeadLetter]) -> None:
        if letters:
            entries = [(self._names.dead, encode(letter), None) for letter in letters]
            if self._reach(lambda: append_batch(self._client, entries, maxlen=DEAD_LETTERS)) is None:
                places = [f"{letter.stream} {letter.position} {letter.code}" for letter in letters]
                _log.error("stopped before dead letters were written", entries=places)

    def _redated(self, stream: str, entries: int) -> None:
        self._metrics.redated.labels(stream).inc(entries)
        _log.error("entries of the future were dated anew", stream=stream, entries=entries)

    def _lag(self) -> dict[str, int]:
        lag = self._reach(lambda: self._reader.lag(self._trainer.positions)) or {}
        for stream, entries in lag.items():
            self._metrics.lag.labels(stream).set(entries)
        return lag

    def _reach(self, call: Callable[[], T]) -> T | None:
        """What a call of Redis returns, tried for as long as it takes; None if we are told to stop meanwhile."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = call()
            except RedisError as error:
                self._report(reachable=False, error=f"{type(error).__name__}: {error}")
                if self._stop.wait(wait_s):
                    return None
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._report(reachable=True)
                return result

    def _report(self, *, reachable: bool, error: str = "") -> None:
        """An outage is logged once, and its end."""
        self._metrics.log_up.set(reachable)
        if reachable != self._reachable:
            self._reachable = reachable
            _log.info("Redis is back") if reachable else _log.error("Redis is gone: waiting for it", error=error)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def tell(metrics: TrainerMetrics, publisher: Publisher, manifest: Manifest) -> str:
    """Tells what became of a version that was written, and returns it: "published", "refused" or "pinned"."""
    guard, refusal = publisher.guard, publisher.refusal
    metrics.guard_pcoc.set(guard.pcoc)
    metrics.guard_normalised_entropy.set(guard.normalised_entropy)
    metrics.guard_refused_in_a_row.set(guard.in_a_row)
    if refusal:
        result = "refused"
        metrics.guard_refused.labels(refusal.code).inc()
        _log.error("version refused by the guard", version=manifest.version, **refusal._asdict())
    elif publisher.serves:
        result = "published"
        _log.info("version published", version=manifest.version, **manifest.metrics)
    else:
        result = "pinned"
        _log.warning("version written, but another one is pinned", version=manifest.version)
    metrics.publishes.labels(result).inc()
    return result


def count(metrics: TrainerMetrics, trainer: Trainer, entries: list[Entry], outcome: Outcome) -> None:
    """Tells Prometheus what a feed came to."""
    for stream, number in Counter(entry.stream for entry in entries).items():
        metrics.entries.labels(stream).inc(number)
    for result, number in outcome.join.items():
        metrics.join.labels(result).inc(number)
    for letter in outcome.dead_letters:
        metrics.dead_letters.labels(letter.code).inc()
    for (strategy, age), sums in outcome.slices.items():
        labels = trainer.lane, strategy, age
        metrics.impressions.labels(*labels).inc(sums.impressions)
        metrics.clicks.labels(*labels).inc(sums.clicks)
        metrics.predicted_clicks.labels(*labels).inc(sums.predicted_clicks)
        metrics.score_sum.labels(*labels).inc(sums.score)
    for _, p, label, weight in outcome.predictions:
        metrics.examples.inc(len(p))
        metrics.steps.inc()
        metrics.loss.set(log_loss(p, label, weight))
    metrics.join_pending.set(trainer.joins.pending)
