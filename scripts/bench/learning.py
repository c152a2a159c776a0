"""Who learns the benchmark's work."""

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import build
from models.spec import FeatureSpec
from scripts.bench.traffic import WINDOW_MS
from scripts.bench.work import LANE, SPEC, STRATEGIES
from service.training.join import Join
from service.training.joins import Joins
from service.training.ranks import Ranks
from service.training.trainer import Trainer

LEARNING_RATE = 1e-3


def new_learner(optimizer: str = "adam", ranks: Ranks | None = None, *, parts: int | None = None) -> Learner:
    """One that knows nothing; of several ranks, one of them."""
    network = ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig())
    peers = ranks.peers if ranks else None
    return Learner(network, learning_rate=LEARNING_RATE, seed=0, optimizer=optimizer, peers=peers, parts=parts)


def new_trainer(learner: Learner, batch_size: int, ranks: Ranks | None = None) -> Trainer:
    """One that knows nothing of the log, whatever its learner knows."""
    return Trainer(
        learner=learner,
        joins=Joins(lambda: Join(window_ms=WINDOW_MS, mode="served", max_pending=1_000_000)),
        lane=LANE,
        strategies={name: build(name, options) for name, options in STRATEGIES.items()},
        batch_size=batch_size,
        mature_impressions=3_000,
        ranks=ranks,
    )
