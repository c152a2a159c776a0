"""Drafts: what a trainer's next manifest says before it is written."""

import math

import msgspec

from models.registry import Strategy
from service.checkpoints import Manifest, ServedStrategy
from service.training.outcome import Progress
from service.training.trainer import Trainer

_CLICK_TIMES = 1_000  # at most so many in a manifest, evenly chosen


def draft(trainer: Trainer, progress: Progress, *, spec: str, now_ms: int) -> Manifest:
    """The manifest of a full version of the trainer as it is.

    Args:
        progress: since the version before.
        spec: the trainer's feature spec as TOML.
        now_ms: Unix time.
    """
    network = trainer.learner.network
    every = math.ceil(len(progress.click_times_ms) / _CLICK_TIMES) or 1
    return Manifest(
        lane=trainer.lane,
        version=trainer.learner.step,
        created_at_ms=now_ms,
        data_timestamp_ms=trainer.data_timestamp_ms,
        spec=spec,
        spec_hash=network.spec.hash,
        network=msgspec.to_builtins(network.config),
        strategies=served(trainer),
        positions=dict(trainer.positions),
        metrics=progress.metrics(),
        click_times_ms=progress.click_times_ms[::every],
    )


def served(trainer: Trainer) -> dict[str, ServedStrategy]:
    """The trainer's strategies as they are to be served."""
    return {name: _served(trainer, one) for name, one in trainer.strategies.items()}


def _served(trainer: Trainer, strategy: Strategy) -> ServedStrategy:
    return ServedStrategy(
        method=strategy.method,
        options=strategy.options,
        graph=f"{strategy.name}.onnx",
        noise=list(strategy.exploration.noise(trainer.learner.network)),
        lambda_=trainer.lambda_(strategy.name),
        budget=strategy.budget,
        uniform_share=strategy.uniform_share,
        propensity_samples=strategy.propensity_samples,
    )
