"""Versions: saved whole or not at all, verified before use, the oldest deleted.

A full version stands for itself. A delta version holds what changed since the version before it, its base, and is
applied to that: so they form chains, each with a full version at its bottom. A trainer continues from full versions
alone.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import structlog
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from models.types import Array
from service.checkpoints.manifest import Base, Manifest, decode, encode, seal
from service.checkpoints.places import below, delta_folder, deltas, find, full_folder, home, previous, versions
from service.checkpoints.pointer import current
from service.checkpoints.store import LAST, Store
from service.checkpoints.tensors import not_finite
from service.errors import CheckpointError

WEIGHTS, STATE, GOLDEN, MANIFEST = "weights.safetensors", "state.safetensors", "golden.safetensors", LAST
DELTA = "delta.safetensors"
_log = structlog.get_logger()
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
            before it, to which a rollback goes. Deltas stay as long as the full version at their bottom.
    """
    arrays = {WEIGHTS: weights, STATE: state, GOLDEN: golden}
    files = {name: safetensors.save(dict(one)) for name, one in arrays.items()}
    files |= {f"graphs/{draft.strategies[name].graph}": graph for name, graph in graphs.items()}
    return _install(store, draft, files, keep)


def save_delta(store: Store, draft: Manifest, *, delta: Mapping[str, Array], golden: Mapping[str, Array]) -> Manifest:
    """Writes a delta version like `save`; deletes nothing.

    Args:
        draft: with its base.
        delta: see `service.deltas`.
    """
    files = {name: safetensors.save(dict(one)) for name, one in ((DELTA, delta), (GOLDEN, golden))}
    sealed = seal(draft, files)
    store.install(home(sealed), {**files, MANIFEST: encode(sealed)})
    return sealed


def load_manifest(store: Store, version: int) -> Manifest:
    """The manifest of a version whose files are all there; `load_*` compare each with its hash as they read it.

    A full version goes before a delta of the same number, and that before one that was refused: all are the same
    weights.

    Raises CheckpointError: missing_version, missing_file, outside_folder, unreadable_manifest, unknown_format,
    hash_mismatch.
    """
    folder = find(store, version)
    found = _manifest(store, folder)
    if found.version != version or home(found) != folder:
        raise CheckpointError("hash_mismatch", f"{store}/{folder}/{MANIFEST} is that of another version")
    return found


def chain(store: Store, found: Manifest, *, known: Manifest | None = None) -> list[Manifest]:
    """What a version is made of, oldest first: a full version and the deltas after it, the last of them `found`.

    Args:
        known: where this version is among them, the chain is only what comes after it.

    Raises CheckpointError: like `load_manifest`, and base_changed.
    """
    links = [found]
    while (base := links[0].base) and not (known and _is(known, base)):
        folder, version = below(base), links[0].version
        under = _manifest(store, folder)
        if not _is(under, base) or under.version >= version:
            raise CheckpointError("base_changed", f"{store}/{folder} is not what version {version} rests on")
        links.insert(0, under)
    return links


def load_weights(store: Store, found: Manifest) -> dict[str, Array]:
    """Parameters and impression counts. Raises CheckpointError: those of `read`, unreadable_file, not_finite."""
    return _finite(found, _load(store, found, WEIGHTS))


def load_delta(store: Store, found: Manifest) -> dict[str, Array]:
    """What is to be applied to the base of a delta version, see `service.deltas`. Raises like `load_weights`."""
    return _finite(found, _load(store, found, DELTA))


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
    content = store.read(home(found), name, found.files[name])
    _compare(store, found, name, hashlib.sha256(content).hexdigest())
    return content


def verify(store: Store, version: int) -> Manifest:
    """The manifest of a version whose every file is what was written, and all that it rests on.

    However large a file is, few pieces of it are held at a time: this is asked of processes that have other work.

    Raises CheckpointError: like `chain` and `load_weights`.
    """
    found = load_manifest(store, version)
    for one in chain(store, found):
        for name in one.files:
            _verify_hash(store, one, name)
        _verify_finite(store, one, DELTA if one.base else WEIGHTS)
    return found


def _install(store: Store, draft: Manifest, files: dict[str, bytes], keep: int) -> Manifest:
    sealed = seal(draft, files)
    store.install(home(sealed), {**files, MANIFEST: encode(sealed)})
    if not draft.refused and sealed.version in versions(store, refused=True):
        store.discard(full_folder(sealed.version, refused=True))
    try:
        _prune(store, sealed.version, keep)
    except OSError as error:  # what is new can serve all the same
        _log.error("old versions could not be deleted: they pile up", store=str(store), error=str(error))
    return sealed


def _prune(store: Store, newest: int, keep: int) -> None:
    """Deletes the oldest versions. Those above `newest` are corrupt ones, or training did not go on from them."""
    try:
        served = current(store)
    except CheckpointError:  # it is damaged, and written anew in a moment
        served = None
    for version in [one for one in versions(store, refused=True) if one <= newest][:-keep]:
        if version != served:  # by force
            store.discard(full_folder(version, refused=True))
    bottoms = deltas(store)
    kept = {served, None if served is None else previous(store, served), bottoms.get(served or 0)}
    for version in [one for one in versions(store) if one <= newest][:-keep]:
        if version not in kept:
            store.discard(full_folder(version))
    left = set(versions(store))
    for version, full in bottoms.items():
        if full not in left or full == newest:  # what it rests on was written anew just now
            store.discard(delta_folder(full, version))


def _manifest(store: Store, folder: str) -> Manifest:
    """Raises CheckpointError: as `load_manifest`."""
    where = f"{store}/{folder}/{MANIFEST}"
    found = decode(store.read(folder, MANIFEST), where=where)
    graphs = {f"graphs/{strategy.graph}" for strategy in found.strategies.values()}
    unlisted = ({DELTA, GOLDEN} if found.base else {WEIGHTS, STATE, GOLDEN} | graphs) - set(found.files)
    if unlisted:
        raise CheckpointError("missing_file", f"{where} does not list {min(unlisted)}")
    store.check(folder, found.files)
    return found


def _compare(store: Store, found: Manifest, name: str, sha256: str) -> None:
    if sha256 != found.files[name]:
        raise CheckpointError("hash_mismatch", f"{store}/{home(found)}/{name} is not what was written")


def _verify_hash(store: Store, found: Manifest, name: str) -> None:
    sha256 = hashlib.sha256()
    for piece in store.pieces(home(found), name, found.files[name]):
        sha256.update(piece)
    _compare(store, found, name, sha256.hexdigest())


def _verify_finite(store: Store, found: Manifest, name: str) -> None:
    """Of a file whose hash is right."""
    try:
        tensor = not_finite(store.pieces(home(found), name, found.files[name]))
    except ValueError as error:
        raise _unreadable(found, name, error) from None
    if tensor is not None:
        raise _infinite(found, tensor)


def _finite(found: Manifest, arrays: dict[str, Array]) -> dict[str, Array]:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _infinite(found, name)
    return arrays


def _load(store: Store, found: Manifest, name: str) -> dict[str, Array]:
    try:
        return safetensors.load(read(store, found, name))
    except SafetensorError as error:
        raise _unreadable(found, name, error) from None


def _unreadable(found: Manifest, name: str, error: Exception) -> CheckpointError:
    return CheckpointError("unreadable_file", f"version {found.version}, {name}: {error}")


def _infinite(found: Manifest, tensor: str) -> CheckpointError:
    return CheckpointError("not_finite", f"version {found.version}: {tensor} holds NaN or infinity")


def _is(found: Manifest, base: Base) -> bool:
    return found.version == base.version and base.digest in (found.digest, found.twin)
