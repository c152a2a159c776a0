"""Every instrument of both processes. The registry is injected; no label is unbounded; base units.

CTR and PCOC are ratios of counters, divided in PromQL so that they aggregate over processes. Their counters are counted
by the trainer when an attribution window closes, so that numerator and denominator are the same impressions.
"""

from service.telemetry.exposition import exposed
from service.telemetry.kinds import ArrayHistogram
from service.telemetry.scorer import STAGES, ScorerMetrics
from service.telemetry.trainer import TrainerMetrics

__all__ = ["STAGES", "ArrayHistogram", "ScorerMetrics", "TrainerMetrics", "exposed"]
