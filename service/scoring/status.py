"""How the scorer is: for orchestrators, for the Open Inference Protocol and for people."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from service.events import from_millis
from service.scoring.ranking import Loaded


class Live(Struct, frozen=True):
    """The process answers."""

    status: Literal["live"] = "live"


Degraded = Literal["log_unavailable", "items_loading"]


class Ready(Struct, frozen=True, kw_only=True):
    """A model is loaded. degraded: what does not work meanwhile; ranking does."""

    status: Literal["ready"] = "ready"
    lane: str
    version: int
    degraded: list[Degraded]


class ServerLive(Struct, frozen=True):
    """Open Inference Protocol."""

    live: bool = True


class ServerReady(Struct, frozen=True):
    """Open Inference Protocol."""

    live: bool = True
    ready: bool = True


class ModelReady(Struct, frozen=True, kw_only=True):
    """Open Inference Protocol."""

    name: str
    ready: bool = True


class ModelMetadata(Struct, frozen=True, kw_only=True):
    """Open Inference Protocol. Ranking takes lists of candidates, not tensors: POST /v1/rank."""

    name: str
    versions: list[str]
    platform: str = "agerank"
    inputs: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []


class StrategySummary(Struct, frozen=True, kw_only=True, rename={"lambda_": "lambda"}):
    """A strategy as it is served. budget: the target share of changed slots, null where lambda is given."""

    method: str
    options: dict[str, Any]
    lambda_: float
    budget: float | None


class ModelSummary(Struct, frozen=True, kw_only=True):
    """The version that serves. metrics: progressive, over the trainer's last window."""

    name: str
    version: int
    created_at: datetime
    data_timestamp: datetime | None
    spec_hash: str
    strategies: dict[str, StrategySummary]
    metrics: dict[str, float]


def summarise(loaded: Loaded) -> ModelSummary:
    """What the manifest says."""
    manifest = loaded.manifest
    return ModelSummary(
        name=manifest.lane,
        version=manifest.version,
        created_at=from_millis(manifest.created_at_ms),
        data_timestamp=from_millis(manifest.data_timestamp_ms) if manifest.data_timestamp_ms else None,
        spec_hash=manifest.spec_hash,
        strategies={
            name: StrategySummary(method=one.method, options=one.options, lambda_=one.lambda_, budget=one.budget)
            for name, one in manifest.strategies.items()
        },
        metrics=manifest.metrics,
    )
