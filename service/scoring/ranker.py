"""POST /v1/rank without HTTP: the bytes of a request become the bytes of its answer, and a served record."""

import time
import uuid
from typing import NamedTuple

import structlog

from models.noise import seed_of
from service.errors import Unavailable
from service.events import Served
from service.scoring import schemas
from service.scoring.answers import shown, to_response, to_served
from service.scoring.experiments import Split
from service.scoring.outbox import Outbox
from service.scoring.ranking import Check, Loaded, Ranking, Rows, Terms, encode_rows, rank
from service.scoring.schemas import RankRequest, WarningCode
from service.scoring.tally import Stages, Tally
from service.scoring.turns import Turns
from service.telemetry import ScorerMetrics


class _Work(NamedTuple):
    """A request that is understood and not yet ranked."""

    loaded: Loaded
    rows: Rows
    terms: Terms
    stages: Stages

    @property
    def asked(self) -> tuple[Loaded, Rows, Terms]:
        return self.loaded, self.rows, self.terms


class Ranker:
    """Ranks with the version it was last given.

    Args:
        lane: whose versions these are.
        traffic: who gets which strategy where the caller names none.
        max_candidates: of one request.
        outbox: takes the served records.
    """

    def __init__(
        self,
        *,
        lane: str,
        traffic: Split,
        max_candidates: int,
        outbox: Outbox,
        metrics: ScorerMetrics,
    ) -> None:
        #: The version that serves. Assigning another is the whole of a swap: a request reads it once.
        self.loaded: Loaded | None = None
        #: Why there is none.
        self.reason = f"no checkpoint in lane {lane} yet: start the trainer"
        self.lane = lane
        self._traffic, self._max_candidates = traffic, max_candidates
        self._outbox, self._tally = outbox, Tally(lane, metrics)
        self._turns = Turns()

    def ready(self) -> Loaded:
        """Raises Unavailable not_ready, saying why."""
        if self.loaded is None:
            raise Unavailable("not_ready", self.reason)
        return self.loaded

    async def rank(self, body: bytes, *, check: Check = lambda: None) -> bytes:
        """The answer to a request.

        Args:
            check: asked before the work begins, and while it goes on; raises where nobody waits for the answer.

        Raises:
            ServiceError: not_ready, and all that a request can have wrong.
        """
        async with self._turns:
            check()
            work = self._begin(body)
            if not work.loaded.engine.batches:
                return self._finish(work, await rank(*work.asked, check=check))
        ranking = await rank(*work.asked, check=check)  # others take their turns meanwhile, and meet us in the engine
        async with self._turns:
            return self._finish(work, ranking)

    def _begin(self, body: bytes) -> _Work:
        stages, loaded = Stages(), self.ready()
        request = loaded.decoder.decode(body, max_candidates=self._max_candidates)
        terms = self._settle(loaded, request)
        stages.end()
        rows = encode_rows(loaded, request)
        stages.end()
        return _Work(loaded, rows, terms, stages)

    def _finish(self, work: _Work, ranking: Ranking) -> bytes:
        loaded, rows, terms, stages = work
        stages.end()
        told = shown(rows, ranking)
        record = to_served(loaded, terms, rows, ranking, told, time_ms=time.time_ns() // 1_000_000)
        warnings = [*self._log(record), *rows.warnings]
        response = to_response(loaded, terms, rows, ranking, told, warnings=warnings, took_ms=stages.so_far_ms)
        answer = schemas.encode(response)
        stages.end()
        self._tally.ranked(terms.strategy, ranking, stages)
        return answer

    def _settle(self, loaded: Loaded, request: RankRequest) -> Terms:
        """Raises Invalid unknown_strategy."""
        request_id = request.request_id or uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)  # of whatever is logged about this request
        bucket, strategy = None, request.strategy
        if strategy is None:
            bucket, strategy = self._traffic.assign(request.user.id or request_id)
        loaded.strategy(strategy)
        seed = seed_of(request_id) if request.seed is None else request.seed
        top_k = request.top_k or len(request.candidates)
        return Terms(request_id, strategy, bucket, seed, top_k, explain=bool(request.explain))

    def _log(self, record: Served) -> list[WarningCode]:
        """Hands the record over, and says what the caller should know."""
        warnings: list[WarningCode] = []
        if not self._outbox.put(record):
            warnings.append("served_record_dropped")
        if not self._outbox.available:
            warnings.append("log_unavailable")
        return warnings
