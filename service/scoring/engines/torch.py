"""The torch engine: the method's own code, on CPU or, where there is one, GPU."""

from collections.abc import Mapping

import msgspec
import torch

from models.networks.click import ClickNetwork, NetworkConfig
from models.policy import Policy
from models.registry import build
from models.spec import FeatureSpec
from models.types import Array, Batch, Noise, Scores
from service.checkpoints import Manifest
from service.errors import CheckpointError
from service.scoring.engines import SeededNoise


class TorchEngine:
    """See `service.scoring.engines.Engine`."""

    batches = False

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies

    @classmethod
    def load(cls, manifest: Manifest, weights: Mapping[str, Array], *, threads: int) -> "TorchEngine":
        """See `service.scoring.engines.load`."""
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = ClickNetwork(FeatureSpec.from_toml(manifest.spec), msgspec.convert(manifest.network, NetworkConfig))
        params = {}
        for name, expected in network.init(torch.Generator()).items():
            if name not in weights or weights[name].shape != tuple(expected.shape):
                found = weights[name].shape if name in weights else "nothing"
                raise CheckpointError("shape_mismatch", f"{name} is {found}, not {tuple(expected.shape)}")
            params[name] = torch.from_numpy(weights[name]).to(device)
        return cls(
            {
                name: Policy(network, params, build(name, {"method": one.method, **one.options}))
                for name, one in manifest.strategies.items()
            }
        )

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        return self._policies[strategy].scores(batch, noise, lambda_, impressions)

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        return self.scores(strategy, batch, noise, lambda_, impressions)
