"""POST /v1/rank without HTTP: the bytes of a request become the bytes of its answer, and a served record."""

import time
import uuid

import numpy as np
import structlog

from models.noise import seed_of
from service.errors import Unavailable
from service.events import Served
from service.scoring import schemas
from service.scoring.answers import to_response, to_served
from service.scoring.experiments import Traffic
from service.scoring.outbox import Outbox
from service.scoring.ranking import Loaded, Ranking, Terms, encode_rows, rank
from service.scoring.schemas import RankRequest, WarningCode
from service.telemetry import ScorerMetrics


class Ranker:
    """Ranks with the version it was last given.

    Args:
        lane: whose versions these are.
        default_strategy: where neither the caller nor the traffic split names one.
        traffic: the split.
        max_candidates: of one request.
        outbox: takes the served records.
    """

    def __init__(
        self,
        *,
        lane: str,
        default_strategy: str,
        traffic: Traffic,
        max_candidates: int,
        outbox: Outbox,
        metrics: ScorerMetrics,
    ) -> None:
        #: The version that serves. Assigning another is the whole of a swap: a request reads it once.
        self.loaded: Loaded | None = None
        #: Why there is none.
        self.reason = f"no checkpoint in lane {lane} yet: start the trainer"
        self.lane = lane
        self._default, self._traffic = default_strategy, traffic
        self._max_candidates = max_candidates
        self._outbox, self._metrics = outbox, metrics

    def ready(self) -> Loaded:
        """Raises Unavailable not_ready, saying why."""
        if self.loaded is None:
            raise Unavailable("not_ready", self.reason)
        return self.loaded

    def rank(self, body: bytes) -> bytes:
        """Raises ServiceError: not_ready, and all that a request can have wrong."""
        started = time.perf_counter()
        loaded, stage = self.ready(), self._metrics.stage
        with stage.labels("decode").time():
            request = schemas.decode_rank(body, max_candidates=self._max_candidates)
        terms = self._settle(loaded, request)
        with stage.labels("encode").time():
            rows = encode_rows(loaded, request)
        with stage.labels("score").time():
            ranking = rank(loaded, rows, terms)
        with stage.labels("respond").time():
            record = to_served(loaded, request, terms, rows, ranking, time_ms=time.time_ns() // 1_000_000)
            warnings = self._log(record, request)
            took_ms = round((time.perf_counter() - started) * 1e3, 3)
            response = to_response(loaded, request, terms, rows, ranking, warnings=warnings, took_ms=took_ms)
            answer = schemas.encode(response)
        self._count(terms, ranking)
        return answer

    def _settle(self, loaded: Loaded, request: RankRequest) -> Terms:
        """Raises Invalid unknown_strategy."""
        request_id = request.request_id or uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)  # of whatever is logged about this request
        bucket, strategy = None, request.strategy
        if strategy is None:
            assigned = self._traffic.assign(request.user.id or request_id)
            bucket, strategy = assigned or (None, self._default)
        loaded.strategy(strategy)
        seed = seed_of(request_id) if request.seed is None else request.seed
        return Terms(request_id, strategy, bucket, seed, request.top_k or len(request.candidates))

    def _log(self, record: Served, request: RankRequest) -> list[WarningCode]:
        """Hands the record over, and says what the caller should know."""
        warnings: list[WarningCode] = []
        if not self._outbox.put(record):
            warnings.append("served_record_dropped")
        if not self._outbox.available:
            warnings.append("log_unavailable")
        if 0 < sum(candidate.bid is None for candidate in request.candidates) < len(request.candidates):
            warnings.append("bid_missing")
        return warnings

    def _count(self, terms: Terms, ranking: Ranking) -> None:
        metrics, strategy = self._metrics, terms.strategy
        scores, slate = ranking.scores, ranking.slate
        count, is_open = len(scores.gate_open), int(scores.gate_open.sum())
        metrics.candidates.observe(count)
        metrics.slots.labels(self.lane, strategy).inc(len(slate.order))
        metrics.changed_slots.labels(self.lane, strategy).inc(int(slate.explored.sum()))
        metrics.gate.labels(strategy, "true").inc(is_open)
        metrics.gate.labels(strategy, "false").inc(count - is_open)
        metrics.uncertainty.observe(strategy, np.abs(scores.uncertainty[slate.order]))
        metrics.delta.observe(strategy, np.abs((scores.score - scores.p_click)[slate.order]))
