"""current.json: which version to serve, and whether the trainer may move on from it.

Trainer, command line and admin port write it, each on condition that it still is what they read: `Store.put`.
"""

from collections.abc import Callable

import msgspec

from service.checkpoints.manifest import Manifest
from service.checkpoints.store import Store
from service.errors import CheckpointError

CURRENT = "current.json"

_ATTEMPTS = 20  # to write it: each failure is somebody else's success


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """current.json."""

    version: int
    data_timestamp_ms: int = 0
    created_at_ms: int = 0
    pinned: bool = False  # by an operator: the trainer's versions do not become current


def read_current(store: Store) -> Current | None:
    """None before the first version. Raises CheckpointError: unreadable_current."""
    return _read(store)[0]


def current(store: Store) -> int | None:
    """The version to serve, like `read_current`."""
    found = read_current(store)
    return found.version if found else None


def point(manifest: Manifest, *, pinned: bool = False) -> Current:
    """What names this version."""
    return Current(
        version=manifest.version,
        data_timestamp_ms=manifest.data_timestamp_ms,
        created_at_ms=manifest.created_at_ms,
        pinned=pinned,
    )


def set_current(store: Store, manifest: Manifest, *, pinned: bool = False) -> None:
    """Makes a saved version the one to serve, whatever was."""
    change_current(store, lambda _: point(manifest, pinned=pinned))


def advance(store: Store, manifest: Manifest) -> bool:
    """The same for the trainer: False, and nothing is changed, where an operator has pinned another version."""
    _, now = change_current(store, lambda found: found if found and found.pinned else point(manifest))
    return now.version == manifest.version


def change_current(store: Store, change: Callable[[Current | None], Current]) -> tuple[Current | None, Current]:
    """Writes what `change` makes of the current content, None where that is absent or cannot be read.

    It is called again where somebody else was faster. The same content is written again, for whoever waits for a sign
    to try it again; the same object is not.

    Returns:
        What was current before, and what is now.
    """
    for _ in range(_ATTEMPTS):
        try:
            found, stamp = _read(store)
        except CheckpointError:  # damaged, and written anew now
            found, stamp = None, store.stamp(CURRENT)
        wanted = change(found)
        if wanted is found or store.put(CURRENT, msgspec.json.encode(wanted), stamp=stamp):
            return found, wanted
    raise OSError(f"{store}: {CURRENT} is written by others all the time")


def _read(store: Store) -> tuple[Current | None, str | None]:
    found = store.get(CURRENT)
    if found is None:
        return None, None
    try:
        return msgspec.json.decode(found[0], type=Current), found[1]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError("unreadable_current", f"{store}: {CURRENT}: {error}") from None
