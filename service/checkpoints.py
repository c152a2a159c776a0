"""Checkpoints: saved whole or not at all, verified before use. numpy only, and nothing in a file is ever executed.

ROOT/current.json                        the version to serve; replaced atomically
ROOT/versions/<version, 12 digits>/      immutable once it is there
    weights.safetensors                  parameters, and items.hash / items.impressions for the scorer
    state.safetensors                    what the trainer continues from
    golden.safetensors                   a request and what every strategy must answer to it
    graphs/<strategy>.onnx               the ranking graphs
    manifest.json                        what the version is, and the sha256 of every other file
ROOT/incoming/                           a version being written; left behind by a crash, cleared by the next save
ROOT/trainer.lock                        held by the one process that writes
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from models.types import Array, NoiseInput
from service import durable
from service.errors import CheckpointError

FORMAT = 2
WEIGHTS, STATE, GOLDEN, MANIFEST = "weights.safetensors", "state.safetensors", "golden.safetensors", "manifest.json"
#: Names of the impression counts among the weights: (N,) uint64 sorted item hashes, (N,) int64 counts.
ITEM_HASH, ITEM_IMPRESSIONS = "items.hash", "items.impressions"


class ServedStrategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy as the scorer needs it: a ranking graph and what to feed it. The scorer knows no method by name."""

    method: str
    options: dict[str, object]  # of the method, all of them
    graph: str  # file name below graphs/
    noise: list[NoiseInput]
    lambda_: float
    budget: float | None  # target share of changed slots, None where lambda is given
    uniform_share: float | None  # see models.slate.choose
    propensity_samples: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json: what a version is. Everything in it is verified or reported, nothing executed."""

    format: int = FORMAT
    lane: str
    version: int  # optimiser steps taken
    created_at_ms: int
    data_timestamp_ms: int  # newest event that the weights contain; 0 before the first
    spec: str  # TOML
    spec_hash: str
    network: dict[str, object]  # NetworkConfig
    strategies: dict[str, ServedStrategy]
    positions: dict[str, str]  # stream -> last entry that the state contains
    metrics: dict[str, float]  # progressive, over the last window
    click_times_ms: list[int]  # of clicks learned since the version before (at most 1,000), for click_to_serving
    files: dict[str, str] = {}  # name -> sha256; written by `save`
    digest: str = ""  # sha256 of this document with digest empty; written by `save`


def save(
    root: Path,
    manifest: Manifest,
    *,
    weights: Mapping[str, Array],
    state: Mapping[str, Array],
    golden: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    keep: int,
) -> Manifest:
    """Writes a version: whole and on disk when this returns, absent when the process dies before.

    Args:
        manifest: without `files` and `digest`; returned with them.
        graphs: strategy -> ONNX.
        keep: versions to keep, this one included; the current one always stays.
    """
    shutil.rmtree(root / "incoming", ignore_errors=True)
    folder = root / "incoming" / _folder(root, manifest.version).name
    (folder / "graphs").mkdir(parents=True)
    arrays = {WEIGHTS: weights, STATE: state, GOLDEN: golden}
    contents = {name: safetensors.save(dict(one)) for name, one in arrays.items()}
    contents |= {f"graphs/{manifest.strategies[name].graph}": graph for name, graph in graphs.items()}
    for name, content in contents.items():
        durable.write(folder / name, content)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = msgspec.structs.replace(manifest, files=files)
    manifest = msgspec.structs.replace(manifest, digest=_digest(manifest))
    durable.write(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    durable.sync(folder / "graphs")
    durable.sync(folder)
    durable.install(folder, _folder(root, manifest.version))
    shutil.rmtree(root / "incoming")
    _prune(root, manifest.version, keep)
    return manifest


def set_current(root: Path, manifest: Manifest) -> None:
    """Makes a saved version the one to serve."""
    content = {name: getattr(manifest, name) for name in ("version", "data_timestamp_ms", "created_at_ms")}
    durable.overwrite(root / "current.json", msgspec.json.encode(content))


def current(root: Path) -> int | None:
    """The version to serve, None before the first. Raises CheckpointError: unreadable_current."""
    try:
        return msgspec.json.decode((root / "current.json").read_bytes(), type=dict[str, int])["version"]
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise CheckpointError("unreadable_current", f"{root / 'current.json'}: {error}") from None


def recover(root: Path) -> None:
    """Puts in order what a death in `save` left. To be called before the first `save` of a process."""
    durable.recover(root / "versions")


def versions(root: Path) -> list[int]:
    """All versions on disk, oldest first. Nothing about them is verified."""
    return sorted(int(one.name) for one in (root / "versions").glob("[0-9]" * 12))


def load_manifest(root: Path, version: int) -> Manifest:
    """The manifest of a version whose files are all there; `load_*` compare each with its hash as they read it.

    Raises CheckpointError: missing_version, missing_file, outside_folder, unreadable_manifest, unknown_format,
    hash_mismatch.
    """
    folder = _folder(root, version)
    if not folder.is_dir():
        raise CheckpointError("missing_version", f"{folder} does not exist")
    path = _inside(folder, MANIFEST)
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=dict[str, object]).get("format")
        if found != FORMAT:
            raise CheckpointError("unknown_format", f"this build reads format {FORMAT}, {path} has {found}")
        manifest = msgspec.json.decode(content, type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError("unreadable_manifest", f"{path}: {error}") from None
    if manifest.version != version or manifest.digest != _digest(manifest):
        raise CheckpointError("hash_mismatch", f"{path} is not what was written")
    graphs = {f"graphs/{strategy.graph}" for strategy in manifest.strategies.values()}
    for name in sorted({WEIGHTS, STATE, GOLDEN} | graphs | set(manifest.files)):
        if name not in manifest.files:
            raise CheckpointError("missing_file", f"{path} does not list {name}")
        _inside(folder, name)
    return manifest


def load_weights(root: Path, manifest: Manifest) -> dict[str, Array]:
    """Parameters and impression counts. Raises CheckpointError: those of `read`, unreadable_file, not_finite."""
    weights = _load(root, manifest, WEIGHTS)
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError("not_finite", f"version {manifest.version}: {name} holds NaN or infinity")
    return weights


def load_state(root: Path, manifest: Manifest) -> dict[str, Array]:
    """What the trainer continues from. Raises like `load_weights`, less not_finite."""
    return _load(root, manifest, STATE)


def load_golden(root: Path, manifest: Manifest) -> dict[str, Array]:
    """Arrays named "<strategy>/in/<graph input>" and "<strategy>/out/<field of Scores>". Raises like `load_state`."""
    return _load(root, manifest, GOLDEN)


def load_graph(root: Path, manifest: Manifest, strategy: str) -> bytes:
    """ONNX of one strategy. Raises CheckpointError: those of `read`."""
    return read(root, manifest, f"graphs/{manifest.strategies[strategy].graph}")


def read(root: Path, manifest: Manifest, name: str) -> bytes:
    """The verified content of one file. Raises CheckpointError: missing_file, outside_folder, hash_mismatch."""
    path = _inside(_folder(root, manifest.version), name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError("missing_file", f"{path}: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise CheckpointError("hash_mismatch", f"{path} is not what was written")
    return content


def _folder(root: Path, version: int) -> Path:
    return root.resolve() / "versions" / f"{version:012d}"


def _inside(folder: Path, name: str) -> Path:
    """Path of an existing regular file of a version; a link that leads out of its folder is refused."""
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(folder):
        raise CheckpointError("outside_folder", f"{folder / name} leads to {path}")
    if not os.path.isfile(path):
        raise CheckpointError("missing_file", f"{path} does not exist")
    return path


def _load(root: Path, manifest: Manifest, name: str) -> dict[str, Array]:
    try:
        return safetensors.load(read(root, manifest, name))
    except SafetensorError as error:
        raise CheckpointError("unreadable_file", f"version {manifest.version}, {name}: {error}") from None


def _digest(manifest: Manifest) -> str:
    """Hash of the content, not of its layout, so that manifest.json can be laid out for people."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, digest=""))).hexdigest()


def _prune(root: Path, newest: int, keep: int) -> None:
    """Deletes the oldest versions."""
    try:
        served = current(root)
    except CheckpointError:  # it is damaged, and written anew in a moment
        served = None
    for version in [one for one in versions(root) if one <= newest][:-keep]:
        if version != served:
            durable.discard(_folder(root, version), aside=root / "incoming")
