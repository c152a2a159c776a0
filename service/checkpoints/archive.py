"""Versions: saved whole or not at all, verified before use, the oldest deleted."""

import hashlib
from collections.abc import Mapping

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from models.types import Array
from service.checkpoints.manifest import Manifest, decode, encode, seal
from service.checkpoints.pointer import current
from service.checkpoints.store import LAST, Store
from service.errors import CheckpointError

WEIGHTS, STATE, GOLDEN, MANIFEST = "weights.safetensors", "state.safetensors", "golden.safetensors", LAST
#: Names of the impression counts among the weights: (N,) uint64 sorted item hashes, (N,) int64 counts.
ITEM_HASH, ITEM_IMPRESSIONS = "items.hash", "items.impressions"


def save(
    store: Store,
    draft: Manifest,
    *,
    weights: Mapping[str, Array],
    state: Mapping[str, Array],
    golden: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    keep: int,
) -> Manifest:
    """Writes a version: whole and lasting when this returns, absent when the process dies before.

    Args:
        draft: the manifest without `files` and `digest`; returned with them.
        graphs: strategy -> ONNX.
        keep: versions to keep, this one included, and as many refused ones. The current one always stays, and the one
            before it, to which a rollback goes.
    """
    arrays = {WEIGHTS: weights, STATE: state, GOLDEN: golden}
    files = {name: safetensors.save(dict(one)) for name, one in arrays.items()}
    files |= {f"graphs/{draft.strategies[name].graph}": graph for name, graph in graphs.items()}
    return _install(store, draft, files, keep)


def versions(store: Store, *, refused: bool = False) -> list[int]:
    """All versions, or those that the guard refused, oldest first. Nothing about them is verified."""
    names = store.folders(_parent(refused))
    return sorted(int(name) for name in names if len(name) == 12 and name.isascii() and name.isdigit())


def previous(store: Store, version: int) -> int | None:
    """The newest version before `version`, None where there is none."""
    return max((one for one in versions(store) if one < version), default=None)


def load_manifest(store: Store, version: int, *, refused: bool = False) -> Manifest:
    """The manifest of a version whose files are all there; `load_*` compare each with its hash as they read it.

    Raises CheckpointError: missing_version, missing_file, outside_folder, unreadable_manifest, unknown_format,
    hash_mismatch.
    """
    folder = _folder(version, refused)
    if version not in versions(store, refused=refused):
        raise CheckpointError("missing_version", f"{store} has no {folder}")
    where = f"{store}/{folder}/{MANIFEST}"
    found = decode(store.read(folder, MANIFEST), where=where)
    if found.version != version or bool(found.refused) != refused:
        raise CheckpointError("hash_mismatch", f"{where} is that of another version")
    graphs = {f"graphs/{strategy.graph}" for strategy in found.strategies.values()}
    unlisted = ({WEIGHTS, STATE, GOLDEN} | graphs) - set(found.files)
    if unlisted:
        raise CheckpointError("missing_file", f"{where} does not list {min(unlisted)}")
    store.check(folder, found.files)
    return found


def load_weights(store: Store, found: Manifest) -> dict[str, Array]:
    """Parameters and impression counts. Raises CheckpointError: those of `read`, unreadable_file, not_finite."""
    weights = _load(store, found, WEIGHTS)
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError("not_finite", f"version {found.version}: {name} holds NaN or infinity")
    return weights


def load_state(store: Store, found: Manifest) -> dict[str, Array]:
    """What the trainer continues from. Raises like `load_weights`, less not_finite."""
    return _load(store, found, STATE)


def load_golden(store: Store, found: Manifest) -> dict[str, Array]:
    """Arrays named "<strategy>/in/<graph input>" and "<strategy>/out/<field of Scores>". Raises like `load_state`."""
    return _load(store, found, GOLDEN)


def load_graph(store: Store, found: Manifest, strategy: str) -> bytes:
    """ONNX of one strategy. Raises CheckpointError: those of `read`."""
    return read(store, found, f"graphs/{found.strategies[strategy].graph}")


def read(store: Store, found: Manifest, name: str) -> bytes:
    """The verified content of one file. Raises CheckpointError: missing_file, outside_folder, hash_mismatch."""
    folder = _folder(found.version, bool(found.refused))
    content = store.read(folder, name)
    if hashlib.sha256(content).hexdigest() != found.files[name]:
        raise CheckpointError("hash_mismatch", f"{store}/{folder}/{name} is not what was written")
    return content


def verify(store: Store, version: int, *, refused: bool = False) -> Manifest:
    """The manifest of a version whose every file is what was written. Raises like `load_manifest`, `load_weights`."""
    found = load_manifest(store, version, refused=refused)
    load_weights(store, found)
    for name in found.files:
        read(store, found, name)
    return found


def accept(store: Store, version: int, *, keep: int) -> Manifest:
    """Makes of a refused version one that may serve: an operator overrules the guard. Raises like `verify`."""
    found = verify(store, version, refused=True)
    files = {name: read(store, found, name) for name in found.files}
    return _install(store, msgspec.structs.replace(found, refused=""), files, keep)


def _install(store: Store, draft: Manifest, files: dict[str, bytes], keep: int) -> Manifest:
    sealed, refused = seal(draft, files), bool(draft.refused)
    store.install(_folder(sealed.version, refused), {**files, MANIFEST: encode(sealed)})
    if not refused and sealed.version in versions(store, refused=True):
        store.discard(_folder(sealed.version, True))
    _prune(store, sealed.version, keep)
    return sealed


def _prune(store: Store, newest: int, keep: int) -> None:
    """Deletes the oldest versions. Those above `newest` are corrupt ones, of which training did not go on."""
    for version in [one for one in versions(store, refused=True) if one <= newest][:-keep]:
        store.discard(_folder(version, True))
    try:
        served = current(store)
    except CheckpointError:  # it is damaged, and written anew in a moment
        served = None
    kept = {served, None if served is None else previous(store, served)}
    for version in [one for one in versions(store) if one <= newest][:-keep]:
        if version not in kept:
            store.discard(_folder(version, False))


def _load(store: Store, found: Manifest, name: str) -> dict[str, Array]:
    try:
        return safetensors.load(read(store, found, name))
    except SafetensorError as error:
        raise CheckpointError("unreadable_file", f"version {found.version}, {name}: {error}") from None


def _parent(refused: bool) -> str:
    return "refused" if refused else "versions"


def _folder(version: int, refused: bool) -> str:
    return f"{_parent(refused)}/{version:012d}"
