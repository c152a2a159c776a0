"""Worker: read -> feed -> publish. The one place of the trainer that meets Redis and the clock.

Nothing is acknowledged anywhere: the position travels in the version, so whatever happens between two of them happens
again after a restart, with the same result.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog
from redis.exceptions import RedisError

from service.appends import append_batch
from service.checkpoints import Manifest
from service.connections import check_server, refusal
from service.errors import CheckpointError
from service.events import Announcement, DeadLetter, encode
from service.streams import Entry, LogReader, StreamNames
from service.telemetry import TrainerMetrics
from service.training.lookout import Lookout
from service.training.outcome import Outcome, Progress
from service.training.publisher import Publisher
from service.training.reports import count, tell
from service.training.rounds import Rounds, Word
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
        window_ms: attribution window.
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
        window_ms: int,
        maxlen: int,
        publish_interval_s: float,
        metrics: TrainerMetrics,
        stop: threading.Event,
        clock: Callable[[], float],
        observe: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._trainer, self._publisher, self._metrics = trainer, publisher, metrics
        self._client, self._names, self._maxlen = client, names, maxlen
        self._reader = LogReader(client, names, owns=trainer.ranks.owns, redated=self._redated)
        self._rounds = Rounds(self._reader, trainer.ranks)
        self._lookout = Lookout(client, self._reader.streams, window_ms=window_ms, metrics=metrics, clock=clock)
        self._interval_s, self._stop, self._clock = publish_interval_s, stop, clock
        self._observe = observe
        self._total, self._unpublished = Progress(), Progress()
        self._started, self._published_s = False, 0.0
        self._reachable = True

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
        drained = False
        while True:
            drained = not self._read(0 if burst else BLOCK_MS) and drained
            entries, they = self._rounds.agree(
                Word(self._stop.is_set(), drained, self._due(), self._publisher.full_is_due)
            )
            self._feed(entries)
            drained = self._rounds.level and not any(self._lag().values())
            if they.stop or (burst and they.drained):
                break
            if they.due:
                self._publish(full=they.full)
        if self._rounds.agree(Word(due=self._unpublished.steps > 0 or not self._publisher.whole))[1].due:
            self._publish(full=True, whole=True)
        self._rounds.agree(Word())  # nobody leaves, and stops a server that it started, while another still writes
        if self._unpublished.steps or not self._publisher.whole:
            raise OSError("the last version could not be written; a restart learns it again from the one before")
        return self._total

    def _start(self) -> None:
        """A version comes first: with it the scorers can serve, whether Redis is there or not."""
        manifest = None
        if self._trainer.ranks.rank == 0:
            manifest = self._publisher.start(now_ms=self._now_ms())
            if not manifest.refused:
                self._announce(manifest)
        self._trainer.follow(manifest)
        self._rounds.go_on(self._trainer.positions)
        self._published_s = self._clock()
        self._started = True
        if warning := self._reach(lambda: check_server(self._client)):
            _log.warning(warning)

    def _read(self, block_ms: int) -> list[Entry]:
        """Reads on. Waits for what is new, but not beyond the time at which a version is due."""
        if self._unpublished.steps:
            block_ms = round(min(block_ms, 1000.0 * self._due_in_s()))
        before = dict(self._rounds.positions)
        entries = self._reach(lambda: self._rounds.read(block_ms=block_ms)) or []
        # Asked after the read: what was removed before it is seen now, and nothing can be missed.
        self._rounds.go_on(self._reach(lambda: self._lookout.look(before, entries)) or {})
        return entries

    def _due(self) -> bool:
        return self._unpublished.steps > 0 and not self._due_in_s()

    def _due_in_s(self) -> float:
        elapsed_s = self._clock() - self._published_s
        # A clock that was set back tells nothing: better a version too soon than none for as long as it was set back.
        return max(self._interval_s - elapsed_s, 0.0) if elapsed_s >= 0.0 else 0.0

    def _feed(self, entries: list[Entry]) -> None:
        outcome = self._trainer.feed(entries)
        if self._rounds.level:
            self._trainer.positions |= self._rounds.positions  # which may have gone back
        self._set_aside(outcome.dead_letters)
        self._total.add(outcome)
        self._total.click_times_ms.clear()  # of use to a version alone, and a worker may run for years
        self._unpublished.add(outcome)
        self._publisher.guard.observe(outcome.predictions)
        count(self._metrics, self._trainer, entries, outcome)
        if self._observe:
            self._observe(outcome)

    def _publish(self, *, full: bool, whole: bool = False) -> None:
        """Publishes what was learned. A version that cannot be written is tried again an interval later.

        Args:
            full: it is to be a full version.
            whole: even if it is not time for one: a restart shall have nothing to learn again.
        """
        self._published_s = self._clock()
        self._trainer.collect(full=full)
        if self._trainer.ranks.rank:
            self._unpublished = Progress()
            return
        publisher, now_ms, started_s = self._publisher, self._now_ms(), time.perf_counter()
        try:
            published = publisher.publish(self._unpublished, now_ms=now_ms, whole=whole)
            self._measure(published.manifest, started_s)
            self._unpublished = Progress()
            tell(self._metrics, publisher.guard, published)
            if published.manifest and published.result == "published":
                self._announce(published.manifest)
            started_s = time.perf_counter()
            self._measure(publisher.complete(), started_s)
        except (OSError, CheckpointError) as error:
            self._metrics.publishes.labels("failed").inc()
            _log.error("version not published", version=self._trainer.learner.step, error=str(error))
            if isinstance(error, CheckpointError):  # neither weights that diverged nor a lost lane come back
                raise

    def _measure(self, manifest: Manifest | None, started_s: float) -> None:
        """What was written since then, if anything was."""
        if manifest:
            self._metrics.publish_seconds.labels(manifest.kind).observe(time.perf_counter() - started_s)
            self._metrics.published_bytes.labels(manifest.kind).inc(manifest.bytes)

    def _announce(self, manifest: Manifest) -> None:
        """Wakes the scorers. They would find the version anyway, so a failure is only noted."""
        self._metrics.published_version.set(manifest.version)
        content = encode(Announcement(lane=manifest.lane, version=manifest.version))
        try:
            append_batch(self._client, [(self._names.models, content, None)], maxlen=self._maxlen)
        except RedisError as error:
            self._metrics.log_errors.labels(refusal(error)).inc()
            _log.warning("version not announced", version=manifest.version, error=str(error))

    def _set_aside(self, letters: list[DeadLetter]) -> None:
        if letters:
            entries = [(self._names.dead, encode(letter), None) for letter in letters]
            if self._reach(lambda: append_batch(self._client, entries, maxlen=DEAD_LETTERS)) is None:
                places = [f"{letter.stream} {letter.position} {letter.code}" for letter in letters]
                _log.error("dead letters were not written", entries=places)

    def _redated(self, stream: str, entries: int) -> None:
        self._metrics.redated.labels(stream).inc(entries)
        _log.error("entries of the future were dated anew", stream=stream, entries=entries)

    def _lag(self) -> dict[str, int]:
        lag = self._reach(lambda: self._reader.lag(self._trainer.positions)) or {}
        for stream, entries in lag.items():
            self._metrics.lag.labels(stream).set(entries)
        return lag

    def _reach(self, call: Callable[[], T]) -> T | None:
        """What a call of Redis returns, tried for as long as it takes.

        None if we are told to stop meanwhile, or where Redis has no room for what the call writes.
        """
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = call()
            except RedisError as error:
                self._metrics.log_errors.labels(refusal(error)).inc()
                if refusal(error) == "out_of_memory":  # it answers, and will not take what we write; we can read on
                    _log.error("Redis is out of memory", error=str(error))
                    return None
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
