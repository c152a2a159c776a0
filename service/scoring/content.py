"""What a version consists of: read whole, or made of what is in memory and the deltas since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from models.types import Array
from service import checkpoints, deltas
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, Manifest, Store
from service.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Content:
    """Never changed: requests rank with it while the next one is made, which shares what did not change.

    Args:
        manifest: of the version.
        weights: prepared parameters and impression counts.
        graphs: strategy -> ONNX.
        click_times_ms: of the clicks that it has and what served before has not, as far as is known.
    """

    manifest: Manifest
    weights: Mapping[str, Array]
    graphs: Mapping[str, bytes]
    click_times_ms: Sequence[int] = ()

    @property
    def items(self) -> tuple[Array, Array]:
        """(N,) uint64 item hashes, ascending, and (N,) int64: how often each was shown."""
        return self.weights[ITEM_HASH], self.weights[ITEM_IMPRESSIONS]

    @property
    def params(self) -> dict[str, Array]:
        """The parameters alone."""
        return {name: one for name, one in self.weights.items() if name not in (ITEM_HASH, ITEM_IMPRESSIONS)}


def read(store: Store, manifest: Manifest, previous: Content | None) -> Content:
    """The content of a version.

    Args:
        previous: what serves. Of a version that rests on it, the deltas since are all that is read.

    Raises:
        CheckpointError: those of `service.checkpoints`, delta_mismatch.
    """
    known = previous.manifest if previous else None
    links = checkpoints.chain(store, manifest, known=known)
    clicks = [one for link in links if known is None or link.version > known.version for one in link.click_times_ms]
    content = previous
    if content is None or links[0].base is None:
        content = _whole(store, links.pop(0))
    for link in links:
        content = _applied(store, content, link)
    return replace(content, click_times_ms=clicks)


def _whole(store: Store, manifest: Manifest) -> Content:
    graphs = {name: checkpoints.load_graph(store, manifest, name) for name in manifest.strategies}
    return Content(manifest=manifest, weights=checkpoints.load_weights(store, manifest), graphs=graphs)


def _applied(store: Store, base: Content, manifest: Manifest) -> Content:
    if _shape(base.manifest) != _shape(manifest):
        detail = f"version {manifest.version} has another spec, network or strategies than {base.manifest.version}"
        raise CheckpointError("delta_mismatch", detail)
    weights = deltas.apply(base.weights, checkpoints.load_delta(store, manifest))
    return Content(manifest=manifest, weights=weights, graphs=base.graphs)


def _shape(manifest: Manifest) -> object:
    """What no delta may change."""
    graphs = {name: one.graph for name, one in manifest.strategies.items()}
    return manifest.lane, manifest.spec_hash, manifest.network, graphs
