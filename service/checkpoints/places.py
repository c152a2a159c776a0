"""Where versions lie in a store, by number. Nothing about them is verified."""

import re

from service.checkpoints.manifest import Base, Manifest
from service.checkpoints.store import DELTAS, REFUSED, VERSIONS, Store
from service.errors import CheckpointError

_DELTA_NAME = re.compile(r"[0-9]{12}-[0-9]{12}")


def versions(store: Store, *, refused: bool = False) -> list[int]:
    """All full versions, or those that the guard refused, oldest first."""
    names = store.folders(_parent(refused))
    return sorted(int(name) for name in names if len(name) == 12 and name.isascii() and name.isdigit())


def deltas(store: Store) -> dict[int, int]:
    """All delta versions, oldest first, and the full version at the bottom of each; like `versions`."""
    names = [name.split("-") for name in sorted(store.folders(DELTAS)) if _DELTA_NAME.fullmatch(name)]
    return dict(sorted((int(version), int(full)) for full, version in names))


def previous(store: Store, version: int) -> int | None:
    """The newest full version before `version`, None where there is none."""
    return max((one for one in versions(store) if one < version), default=None)


def find(store: Store, version: int) -> str:
    """The folder of a version. Raises CheckpointError missing_version."""
    if version in versions(store):
        return full_folder(version)
    full = deltas(store).get(version)
    if full is not None:
        return delta_folder(full, version)
    if version in versions(store, refused=True):
        return full_folder(version, refused=True)
    raise CheckpointError("missing_version", f"{store} has no version {version}")


def home(found: Manifest) -> str:
    """The folder of what this is the manifest of."""
    if found.base:
        return delta_folder(found.base.full, found.version)
    return full_folder(found.version, refused=bool(found.refused))


def below(base: Base) -> str:
    """The folder of what a delta rests on."""
    return full_folder(base.full) if base.version == base.full else delta_folder(base.full, base.version)


def full_folder(version: int, *, refused: bool = False) -> str:
    return f"{_parent(refused)}/{version:012d}"


def delta_folder(full: int, version: int) -> str:
    return f"{DELTAS}/{full:012d}-{version:012d}"


def _parent(refused: bool) -> str:
    return REFUSED if refused else VERSIONS
