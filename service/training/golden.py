"""The golden request: what the trainer's own engine answers, for the scorer's engine to match before it serves."""

import numpy as np

from models.noise import draw
from models.policy import Policy
from models.spec import Layout
from models.types import Array, Batch
from service.training.trainer import Trainer

_ROWS = 7  # candidates: any number that no other size equals by chance
_SEED = 0


def golden(trainer: Trainer) -> dict[str, Array]:
    """A request and what every strategy answers to it, under the names of `checkpoints.load_golden`."""
    learner = trainer.learner
    generator = np.random.default_rng(_SEED)
    context = _rows(generator, learner.network.spec.context, 1)
    item = _rows(generator, learner.network.spec.item, _ROWS)
    batch = Batch(*context, *item)
    hashes = generator.integers(2**63, size=_ROWS, dtype=np.uint64)
    impressions = np.arange(_ROWS, dtype=np.int64) * 1_000  # on both sides of any usual threshold
    arrays: dict[str, Array] = {}
    for name, strategy in trainer.strategies.items():
        policy = Policy(learner.network, learner.params, strategy)
        seed = np.array([_SEED], dtype=np.uint64)
        noise = draw(policy.noise, request_seed=seed, version=learner.step, item_hash=hashes)
        lambda_ = trainer.lambda_(name)
        scores = policy.scores(batch, noise, lambda_, impressions)
        given = {**batch._asdict(), **noise, "impressions": impressions, "lambda": np.array(lambda_, dtype=np.float32)}
        arrays |= {f"{name}/in/{key}": value for key, value in given.items()}
        arrays |= {f"{name}/out/{key}": value for key, value in scores._asdict().items()}
    return arrays


def _rows(generator: np.random.Generator, layout: Layout, count: int) -> tuple[Array, Array]:
    """Random rows of one side's fields, and weights: ((count, K) int32, (count, K) float32)."""
    index = [one.offset + generator.integers(one.field.rows, size=(count, one.field.slots)) for one in layout.columns]
    weight = generator.random((count, layout.slots), dtype=np.float32)
    return np.concatenate([np.empty((count, 0)), *index], axis=1).astype(np.int32), weight
