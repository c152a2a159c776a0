"""Publisher: a trainer's state becomes a version on disk, and a version a trainer's state again."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import structlog
from prometheus_client import Counter

from models.registry import Strategy
from models.types import Array
from service import checkpoints
from service.checkpoints import Manifest, ServedStrategy, Store
from service.errors import CheckpointError
from service.training.golden import golden
from service.training.guard import Guard, Refusal
from service.training.outcome import Progress
from service.training.trainer import Trainer

_CLICK_TIMES = 1_000  # at most so many in a manifest, evenly chosen

_log = structlog.get_logger()


class Publisher:
    """Writes and reads the versions of one trainer. Whoever has one holds the store's lock.

    Args:
        store: the lane's.
        trainer: whose state it is.
        spec: its feature spec as TOML, as it travels in the manifest.
        graphs: strategy -> ONNX; the same for all versions.
        keep: versions kept on disk.
        guard: is shown what the trainer learned, and says what may serve.
        refused: counts versions that do not verify, by code.
    """

    def __init__(
        self,
        store: Store,
        trainer: Trainer,
        *,
        spec: str,
        graphs: Mapping[str, bytes],
        keep: int,
        guard: Guard,
        refused: Counter,
    ) -> None:
        self._store, self._trainer, self._spec = store, trainer, spec
        self._graphs, self._keep, self._refused = dict(graphs), keep, refused
        self.guard = guard
        self.refusal: Refusal | None = None  # of the version written last
        self.serves = False  # whether that one became the current version

    def start(self, *, now_ms: int) -> Manifest:
        """Puts the trainer where the newest version that verifies was taken, and makes that the current one.

        Unless the guard refused it, or an operator pinned another: the trainer goes on from it all the same. Where
        there is none yet, version 0 is published: the scorer needs something to begin with. So is a version whose
        strategies are not the configured ones, under its old number: the next may be long in coming.

        Raises:
            CheckpointError: spec_mismatch, network_mismatch, no_usable_version.
        """
        self._store.recover()
        manifest = self._resume()
        if manifest is None or not self._offers_the_same(manifest):
            return self.publish(Progress(), now_ms=now_ms)
        current = _current(self._store)
        if manifest.refused and current is None:
            self._serve_before(manifest.version)
        elif not manifest.refused and current != manifest.version:
            checkpoints.advance(self._store, manifest)
        return manifest

    def publish(self, progress: Progress, *, now_ms: int) -> Manifest:
        """Writes the trainer's state as a version, and makes that the current one.

        Not where the guard refuses it: then it is kept aside, for the trainer to continue from and for people to look
        at. Nor where an operator has pinned another version.

        Args:
            progress: since the version before.
            now_ms: Unix time.

        Raises:
            CheckpointError: not_finite, from which no training leads back; locked, by another trainer.
            OSError: it cannot be written.
        """
        trainer, network = self._trainer, self._trainer.learner.network
        weights = trainer.weights()
        for name, array in weights.items():
            if not np.isfinite(array).all():
                advice = "lower learning_rate; a restart goes on from the newest version"
                raise CheckpointError("not_finite", f"{name} holds NaN or infinity: training diverged; {advice}")
        self.refusal = self.guard.judge()
        every = math.ceil(len(progress.click_times_ms) / _CLICK_TIMES) or 1
        manifest = Manifest(
            lane=trainer.lane,
            version=trainer.learner.step,
            created_at_ms=now_ms,
            data_timestamp_ms=trainer.data_timestamp_ms,
            spec=self._spec,
            spec_hash=network.spec.hash,
            network=msgspec.to_builtins(network.config),
            strategies={name: self._served(one) for name, one in trainer.strategies.items()},
            positions=dict(trainer.positions),
            metrics=progress.metrics(),
            click_times_ms=progress.click_times_ms[::every],
            refused=": ".join(self.refusal or ()),
        )
        manifest = checkpoints.save(
            self._store,
            manifest,
            weights=weights,
            state=trainer.state() | self.guard.state(),
            golden=golden(trainer),
            graphs=self._graphs,
            keep=self._keep,
        )
        self.serves = self.refusal is None and checkpoints.advance(self._store, manifest)
        return manifest

    def _resume(self) -> Manifest | None:
        """The newest version that verifies, refused or not, restored. The log still holds what came after it."""
        versions = {*checkpoints.versions(self._store), *checkpoints.versions(self._store, refused=True)}
        for version in sorted(versions, reverse=True):
            try:
                manifest = checkpoints.load_manifest(self._store, version)
                weights = checkpoints.load_weights(self._store, manifest)
                state = checkpoints.load_state(self._store, manifest)
                for name in manifest.files.keys() - {checkpoints.WEIGHTS, checkpoints.STATE}:
                    checkpoints.read(self._store, manifest, name)
            except CheckpointError as error:
                _log.error("version passed over", version=version, code=error.code, detail=error.detail)
                self._refused.labels(error.code).inc()
            else:
                self._restore(manifest, weights, state)
                return manifest
        if versions:
            raise CheckpointError(
                "no_usable_version", f"no version in {self._store} verifies; to begin anew, move it away"
            )
        return None

    def _serve_before(self, version: int) -> None:
        """Makes the newest version before a refused one current, where nobody knows which one was."""
        before = checkpoints.previous(self._store, version)
        if before is not None:
            checkpoints.advance(self._store, checkpoints.load_manifest(self._store, before))

    def _restore(self, manifest: Manifest, weights: dict[str, Array], state: dict[str, Array]) -> None:
        advice = f"than version {manifest.version} in {self._store} was trained with; give it a lane of its own"
        if manifest.spec_hash != self._trainer.learner.network.spec.hash:
            raise CheckpointError("spec_mismatch", f"another feature spec {advice}")
        try:
            self._trainer.restore(manifest, weights, state)
            self.guard.restore(state)
        except ValueError as error:
            raise CheckpointError("network_mismatch", f"another network {advice} ({error})") from None

    def _offers_the_same(self, manifest: Manifest) -> bool:
        served = {name: self._served(one) for name, one in self._trainer.strategies.items()}
        graphs = {name: checkpoints.load_graph(self._store, manifest, name) for name in manifest.strategies}
        return (manifest.strategies, graphs) == (served, self._graphs)

    def _served(self, strategy: Strategy) -> ServedStrategy:
        return ServedStrategy(
            method=strategy.method,
            options=strategy.options,
            graph=f"{strategy.name}.onnx",
            noise=list(strategy.exploration.noise(self._trainer.learner.network)),
            lambda_=self._trainer.lambda_(strategy.name),
            budget=strategy.budget,
            uniform_share=strategy.uniform_share,
            propensity_samples=strategy.propensity_samples,
        )


def _current(store: Store) -> int | None:
    """As `checkpoints.current`; what cannot be read is written anew."""
    try:
        return checkpoints.current(store)
    except CheckpointError as error:
        _log.error("current.json is of no use", code=error.code, detail=error.detail)
        return None
