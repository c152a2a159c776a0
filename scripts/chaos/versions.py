"""What a trainer leaves behind: whether it serves, and whether two of them are the same to the last bit."""

from service import checkpoints
from service.checkpoints import Store
from service.errors import CheckpointError


def usable(store: Store) -> bool:
    """Whether a scorer that starts now has a version that verifies."""
    try:
        version = checkpoints.current(store)
        if version is not None:
            checkpoints.verify(store, version)
    except CheckpointError:
        return False
    return version is not None


def differing(one: Store, other: Store) -> list[str]:
    """Names of what is not the same to the last bit in the versions that two lanes ended with."""
    ours, theirs = _last(one), _last(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _last(store: Store) -> dict[str, object]:
    """Everything that decides the future of the trainer that wrote the current version."""
    version = checkpoints.current(store)
    assert version is not None, "one was announced"
    manifest = checkpoints.load_manifest(store, version)
    arrays = checkpoints.load_weights(store, manifest) | checkpoints.load_state(store, manifest)
    told = {name: getattr(manifest, name) for name in ("version", "data_timestamp_ms", "positions")}
    return told | {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
