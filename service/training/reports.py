"""Reports: what the worker does, as Prometheus and the log have it."""

from collections import Counter
from collections.abc import Sequence

import structlog

from models.metrics import log_loss
from service.streams import Entry
from service.telemetry import TrainerMetrics
from service.training.guard import Guard
from service.training.outcome import Outcome, Published
from service.training.trainer import Trainer

_log = structlog.get_logger()


def tell(metrics: TrainerMetrics, guard: Guard, published: Published) -> None:
    """Tells what became of a version, and what the guard saw."""
    metrics.guard_pcoc.set(guard.pcoc)
    metrics.guard_normalised_entropy.set(guard.normalised_entropy)
    metrics.guard_refused_in_a_row.set(guard.in_a_row)
    metrics.publishes.labels(published.result).inc()
    manifest, refusal = published.manifest, published.refusal
    version = manifest and manifest.version
    if refusal:
        metrics.guard_refused.labels(refusal.code).inc()
        _log.error("version refused by the guard", kept=version, **refusal._asdict())
    elif published.result == "behind":
        _log.info("the current version knows more: learning it again", kept=version)
    elif published.result == "pinned":
        _log.warning("version written, but another one is pinned", version=version)
    elif manifest:
        _log.info("version published", version=version, kind=manifest.kind, **manifest.metrics)


def count(metrics: TrainerMetrics, trainer: Trainer, entries: Sequence[Entry], outcome: Outcome) -> None:
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
    for _, p, label, weight in outcome.predictions if trainer.ranks.rank == 0 else []:  # all ranks know the same
        metrics.examples.inc(len(p))
        metrics.steps.inc()
        metrics.loss.set(log_loss(p, label, weight))
    metrics.join_pending.set(trainer.joins.pending)
