"""The torch engine: the method's own code, on CPU or, where there is one, GPU."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import torch

from models.beliefs.belief import Belief, fresh, prepare
from models.networks.click import ClickNetwork, NetworkConfig, Params
from models.policy import Policy
from models.registry import Strategy, beliefs, build
from models.spec import FeatureSpec
from models.types import Array, Batch, Noise, Scores
from service.checkpoints import Manifest
from service.errors import CheckpointError
from service.scoring.engines import SeededNoise
from service.scoring.engines.batching import Batcher, Request
from service.scoring.engines.device import Device


@dataclass(frozen=True, eq=False)
class _Ranking:
    """One strategy of one version: what requests share that are computed together."""

    device: Device
    params: Params
    strategy: str

    def run(self, requests: Sequence[Request]) -> list[Scores]:
        return self.device.run(self.params, self.strategy, requests)


class TorchEngine:
    """See `service.scoring.engines.Engine`. It batches where it is given a batcher.

    Args:
        policies: strategy -> policy; they answer `scores`.
        params: prepared.
        device, batcher: answer `submit`; without them the policies do.
    """

    def __init__(
        self, policies: Mapping[str, Policy], params: Params, device: Device | None, batcher: Batcher | None
    ) -> None:
        self._policies, self._device, self._batcher = policies, device, batcher
        self._rankings = {name: _Ranking(device, params, name) for name in policies} if device else {}

    @classmethod
    def load(
        cls,
        manifest: Manifest,
        weights: Mapping[str, Array],
        *,
        threads: int,
        batcher: Batcher | None = None,
        fuse: bool = False,
        previous: object = None,
    ) -> "TorchEngine":
        """See `service.scoring.engines.load`."""
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")  # no TF32: a GPU's scores are those of a CPU
        network = ClickNetwork(FeatureSpec.from_toml(manifest.spec), msgspec.convert(manifest.network, NetworkConfig))
        strategies = {
            name: build(name, {"method": one.method, **one.options}) for name, one in manifest.strategies.items()
        }
        params = _params(network, strategies.values(), weights)
        policies = {name: Policy(network, params, strategy) for name, strategy in strategies.items()}
        prepared = prepare(network, beliefs(strategies.values()), params)
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()  # they are read on another stream
        device = None
        if batcher:
            explorations = {name: one.exploration for name, one in strategies.items()}
            device = previous._device if isinstance(previous, TorchEngine) else None
            if device is None or not device.serves(network, explorations):
                device = Device(
                    network,
                    prepared,
                    explorations,
                    max_rows=batcher.max_rows,
                    max_requests=batcher.max_requests,
                    fuse=fuse,
                )
        return cls(policies, prepared, device, batcher)

    @property
    def batches(self) -> bool:
        return self._device is not None

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        return self._policies[strategy].scores(batch, noise, lambda_, impressions)

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        if self._batcher is None:
            return self.scores(strategy, batch, noise, lambda_, impressions)
        return await self._batcher.submit(self._rankings[strategy], Request(batch, noise, lambda_, impressions))


def _params(network: ClickNetwork, strategies: Iterable[Strategy], weights: Mapping[str, Array]) -> Params:
    """The weights on the GPU, where there is one. Raises CheckpointError shape_mismatch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = {}
    for name, expected in _shapes(network, tuple(beliefs(strategies))).items():
        if name not in weights or weights[name].shape != expected:
            found = weights[name].shape if name in weights else "nothing"
            raise CheckpointError("shape_mismatch", f"{name} is {found}, not {tuple(expected)}")
        params[name] = torch.from_numpy(weights[name]).to(device)
    return params


@lru_cache(maxsize=4)  # to draw large tables takes longer than to load them
def _shapes(network: ClickNetwork, believed: tuple[Belief, ...]) -> dict[str, torch.Size]:
    """Of the parameters."""
    return {name: value.shape for name, value in fresh(network, believed, seed=0).items()}
