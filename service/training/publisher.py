"""Publisher: a trainer's state becomes a version on disk, and a version a trainer's state again.

A restart continues from the newest full version. A delta after it goes on serving: nothing becomes current before the
trainer has learned again what that knows. The first version after a restart is a full one, so that a chain of deltas is
of one run, and a trainer that is killed over and over still gets on.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
import structlog
from prometheus_client import Counter

from models.types import Array
from service import checkpoints
from service.checkpoints import Base, Manifest, Store
from service.errors import CheckpointError
from service.training.drafts import draft, served
from service.training.golden import golden
from service.training.guard import Guard
from service.training.outcome import Progress, Published
from service.training.trainer import Trainer

_log = structlog.get_logger()


class Publisher:
    """Writes and reads the versions of one trainer. Whoever has one holds the store's lock.

    Args:
        store: the lane's.
        trainer: whose state it is.
        spec: its feature spec as TOML, as it travels in the manifest.
        graphs: strategy -> ONNX; the same for all versions.
        keep: full versions kept on disk.
        guard: is shown what the trainer learned, and says what may serve.
        refused: counts versions that do not verify, by code.
        full_every: versions from one full one to the next; those between are deltas.

    Attributes:
        whole: whether a restart would have nothing to learn again of what was to be published.
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
        full_every: int = 1,
    ) -> None:
        self._store, self._trainer, self._spec = store, trainer, spec
        self._graphs, self._keep, self._refused = dict(graphs), keep, refused
        self.guard = guard
        self.whole = True
        self._full_every, self._left = full_every, 0  # deltas until the next full version
        self._owed = False  # that version, which serves as a delta already
        self._base: Manifest | None = None  # on which the next delta rests
        self._ahead = -1  # version of a delta that serves, and that we have not reached again
        self._knows_rows = trainer.learner.touched() is not None
        if full_every > 1 and not self._knows_rows:
            _log.warning("every version is a full one: this optimizer moves all rows in every step")

    @property
    def full_is_due(self) -> bool:
        """Whether the next version is a full one; for deltas nobody needs `Trainer.state`."""
        return not self._left or self._base is None or not self._knows_rows

    def start(self, *, now_ms: int) -> Manifest:
        """Puts the trainer where the newest version that verifies was taken, and makes that the current one.

        Unless the guard refused it, a delta after it serves, or an operator pinned another: the trainer goes on from it
        all the same. Where there is none yet, version 0 is published: scorers need something to begin with. So is one
        of other strategies than configured, under its old number; but not where another is pinned: it may rest on this.

        Raises:
            CheckpointError: spec_mismatch, network_mismatch, no_usable_version.
        """
        self._store.recover()
        manifest = self._resume()
        current, pinned = _current(self._store)
        held = pinned and manifest is not None and current != manifest.version
        if manifest is None or not (held or self._offers_the_same(manifest)):
            manifest = self.publish(Progress(), now_ms=now_ms).manifest
            assert manifest is not None, "the first version is a full one"
            return manifest
        if current is not None and current > manifest.version and self._is_sound_delta(current):
            self._ahead = current
        elif manifest.refused:
            if current is None or not self._verifies(current):
                self._serve_before(manifest.version)
        elif current != manifest.version:
            checkpoints.advance(self._store, manifest)
        return manifest

    def publish(self, progress: Progress, *, now_ms: int, whole: bool = False) -> Published:
        """Writes the trainer's state as a version, and makes that the current one.

        Not where the guard refuses it: then a full version is kept aside, for the trainer to continue from and for
        people to look at, and a delta is not written. Nor where the current version knows more, or is pinned. Where a
        full version is due that can serve, a delta serves first, and `complete` writes the full one.

        Args:
            progress: since the version before.
            now_ms: Unix time.
            whole: the version must be a full one.

        Raises:
            CheckpointError: not_finite, from which no training leads back; locked, by another trainer.
            OSError: it cannot be written.
        """
        trainer, full = self._trainer, whole or self.full_is_due
        refusal, behind = self.guard.judge(), trainer.learner.step <= self._ahead
        serve, self._owed = not refusal and not behind, False
        if not full and not serve:
            self.whole, self._left = False, self._left - 1
            return Published("refused" if refusal else "behind", None, refusal)
        manifest, base = draft(trainer, progress, spec=self._spec, now_ms=now_ms), self._base
        if serve and base and base.version == manifest.version and not (whole and base.base):
            manifest, self._owed = base, full and base.base is not None  # written, and could not be made current
        elif serve and not whole and base and self._knows_rows:
            manifest = self._save_delta(manifest, base)
            self.whole, self._left, self._owed = False, max(self._left - 1, 0), full
        else:
            manifest = self._save(msgspec.structs.replace(manifest, refused=": ".join(refusal or ())))
        if refusal:
            return Published("refused", manifest, refusal)
        self._base = manifest
        trainer.settle()
        if behind:
            return Published("behind", manifest)
        return Published("published" if checkpoints.advance(self._store, manifest) else "pinned", manifest)

    def complete(self) -> Manifest | None:
        """Writes what was just published as a full version, too, if one is due: it serves already, and sooner.

        Raises like `publish`.
        """
        if not self._owed or self._base is None:
            return None
        self._base = self._save(msgspec.structs.replace(self._base, base=None, twin=self._base.digest))
        return self._base

    def _save(self, manifest: Manifest) -> Manifest:
        saved = checkpoints.save(
            self._store,
            manifest,
            weights=_finite(self._trainer.weights()),
            state=self._trainer.state() | self.guard.state(),
            golden=golden(self._trainer),
            graphs=self._graphs,
            keep=self._keep,
        )
        self.whole, self._left, self._owed = True, self._full_every - 1, False
        return saved

    def _save_delta(self, manifest: Manifest, below: Manifest) -> Manifest:
        full = below.base.full if below.base else below.version
        base = Base(version=below.version, digest=below.twin or below.digest, full=full)
        manifest = msgspec.structs.replace(manifest, base=base)
        delta = _finite(self._trainer.delta() or {})
        return checkpoints.save_delta(self._store, manifest, delta=delta, golden=golden(self._trainer))

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
                self._pass_over(version, error)
            else:
                self._restore(manifest, weights, state)
                return manifest
        if versions:
            raise CheckpointError(
                "no_usable_version", f"no version in {self._store} verifies; to begin anew, move it away"
            )
        return None

    def _is_sound_delta(self, version: int) -> bool:
        return version not in checkpoints.versions(self._store) and self._verifies(version)

    def _verifies(self, version: int) -> bool:
        try:
            checkpoints.verify(self._store, version)
        except CheckpointError as error:
            self._pass_over(version, error)
            return False
        return True

    def _pass_over(self, version: int, error: CheckpointError) -> None:
        _log.error("version passed over", version=version, code=error.code, detail=error.detail)
        self._refused.labels(error.code).inc()

    def _serve_before(self, version: int) -> None:
        """Makes the newest sound version before a refused one current, where the current one is of no use."""
        while (before := checkpoints.previous(self._store, version)) is not None:
            if self._verifies(before):
                checkpoints.advance(self._store, checkpoints.load_manifest(self._store, before))
                return
            version = before

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
        graphs = {name: checkpoints.load_graph(self._store, manifest, name) for name in manifest.strategies}
        return (manifest.strategies, graphs) == (served(self._trainer), self._graphs)


def _finite(arrays: dict[str, Array]) -> dict[str, Array]:
    """Raises CheckpointError: not_finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            advice = "lower learning_rate; a restart goes on from the newest full version"
            raise CheckpointError("not_finite", f"{name} holds NaN or infinity: training diverged; {advice}")
    return arrays


def _current(store: Store) -> tuple[int | None, bool]:
    """The version of current.json, and whether it is pinned; what cannot be read is written anew."""
    try:
        found = checkpoints.read_current(store)
    except CheckpointError as error:
        _log.error("current.json is of no use", code=error.code, detail=error.detail)
        found = None
    return (found.version, found.pinned) if found else (None, False)
