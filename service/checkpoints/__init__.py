"""Checkpoints: saved whole or not at all, verified before use. numpy only, and nothing in a file is ever executed.

current.json                             the version to serve, and whether it is pinned; replaced atomically
versions/<version, 12 digits>/           immutable once it is there
    weights.safetensors                  parameters, and items.hash / items.impressions for the scorer
    state.safetensors                    what the trainer continues from
    golden.safetensors                   a request and what every strategy must answer to it
    graphs/<strategy>.onnx               the ranking graphs
    manifest.json                        what the version is, and the sha256 of every other file
deltas/<full version>-<version>/         what changed since the version before, down to a full one
    delta.safetensors                    see `service.deltas`
    golden.safetensors, manifest.json    as above
refused/<version>/                       as versions/<version>/, kept aside by the guard: they never serve

Where all this lies is a `Store`: a folder (`local`) or object storage (`objects`).
"""

from pathlib import Path

from service.checkpoints.archive import (
    DELTA,
    GOLDEN,
    ITEM_HASH,
    ITEM_IMPRESSIONS,
    MANIFEST,
    STATE,
    WEIGHTS,
    chain,
    load_delta,
    load_golden,
    load_graph,
    load_manifest,
    load_state,
    load_weights,
    read,
    save,
    save_delta,
    verify,
)
from service.checkpoints.local import LocalStore
from service.checkpoints.manifest import FORMAT, Base, Manifest, ServedStrategy
from service.checkpoints.places import deltas, previous, versions
from service.checkpoints.pointer import (
    CURRENT,
    Current,
    advance,
    change_current,
    current,
    point,
    read_current,
    set_current,
)
from service.checkpoints.store import Store, StoreError, passes

__all__ = [
    "CURRENT",
    "DELTA",
    "FORMAT",
    "GOLDEN",
    "ITEM_HASH",
    "ITEM_IMPRESSIONS",
    "MANIFEST",
    "STATE",
    "WEIGHTS",
    "Base",
    "Current",
    "LocalStore",
    "Manifest",
    "ServedStrategy",
    "Store",
    "StoreError",
    "advance",
    "change_current",
    "chain",
    "current",
    "deltas",
    "load_delta",
    "load_golden",
    "load_graph",
    "load_manifest",
    "load_state",
    "load_weights",
    "open_store",
    "passes",
    "point",
    "previous",
    "read",
    "read_current",
    "save",
    "save_delta",
    "set_current",
    "verify",
    "versions",
]


def open_store(place: Path | str) -> Store:
    """The store in a folder, or behind the URL of object storage. Raises StoreError, for a URL alone."""
    if isinstance(place, Path):
        return LocalStore(place)
    from service.checkpoints.objects import open_url  # an extra

    return open_url(place)
