"""What an operator does with the versions of a lane: look, choose one, go back, hold on. Neither process need run.

Whoever chooses a version means it: it is pinned, so that the trainer's next one does not take its place.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from service import checkpoints
from service.checkpoints import Current, Manifest, Store
from service.errors import CheckpointError, Conflict, NotFound
from service.events import from_millis

State = Literal["current", "available", "refused", "unreadable"]


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version in a list. base: of a delta, the version that it rests on. reason: why it is refused or unreadable."""

    version: int
    state: State
    created_at: datetime | None = None
    data_timestamp: datetime | None = None
    base: int | None = None
    metrics: dict[str, float] = {}
    reason: str = ""


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """All of a lane, newest first. current: what the scorers shall serve. pinned: the trainer leaves it so."""

    lane: str
    current: int | None
    pinned: bool
    versions: list[Version]


class VersionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A version of which every file is what was written."""

    version: int
    state: State
    lane: str
    created_at: datetime | None
    data_timestamp: datetime | None
    base: int | None
    metrics: dict[str, float]
    reason: str
    spec_hash: str
    network: dict[str, Any]
    strategies: list[str]
    positions: dict[str, str]
    files: dict[str, str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What serves from now on. before: what did until now."""

    version: int
    pinned: bool
    before: int | None


def overview(store: Store, lane: str) -> Versions:
    """All versions. Of those that cannot be read it says why."""
    found = _current(store)
    numbers = {*checkpoints.versions(store), *checkpoints.deltas(store), *checkpoints.versions(store, refused=True)}
    rows = [_row(store, number, found) for number in sorted(numbers, reverse=True)]
    current, pinned = (found.version, found.pinned) if found else (None, False)
    return Versions(lane=lane, current=current, pinned=pinned, versions=rows)


def detail(store: Store, version: int) -> VersionDetail:
    """One version, verified. Raises NotFound not_found, Conflict version_unusable."""
    manifest = _verify(store, version)
    return VersionDetail(
        version=version,
        state=_state(manifest, _current(store)),
        lane=manifest.lane,
        created_at=_time(manifest.created_at_ms),
        data_timestamp=_time(manifest.data_timestamp_ms),
        base=manifest.base.version if manifest.base else None,
        metrics=manifest.metrics,
        reason=manifest.refused,
        spec_hash=manifest.spec_hash,
        network=manifest.network,
        strategies=list(manifest.strategies),
        positions=manifest.positions,
        files=manifest.files,
    )


def activate(store: Store, version: int, *, pin: bool = True, force: bool = False) -> Choice:
    """Makes a version the current one.

    Args:
        pin: the trainer must not replace it until `unpin`; else its next version does.
        force: although the guard refused it.

    Raises:
        NotFound: not_found.
        Conflict: version_unusable, version_refused.
    """
    manifest = _verify(store, version)
    if manifest.refused and not force:
        raise Conflict("version_refused", f"the guard refused version {version} ({manifest.refused}); it may be forced")
    return _choose(store, lambda _: checkpoints.point(manifest, pinned=pin))


def rollback(store: Store) -> Choice:
    """Makes the newest full version before the current one current, and pins it; one that does not verify is no choice.

    Raises Conflict: no_current_version, no_earlier_version.
    """

    def back(found: Current | None) -> Current:
        version = _required(found).version
        while (earlier := checkpoints.previous(store, version)) is not None:
            try:
                return checkpoints.point(_verify(store, earlier), pinned=True)
            except Conflict:
                version = earlier
        raise Conflict("no_earlier_version", f"there is no usable version before {_required(found).version}")

    return _choose(store, back)


def pin(store: Store, pinned: bool) -> Choice:
    """Holds on to the version that serves, or lets the trainer's next one serve. Raises Conflict no_current_version."""
    return _choose(store, lambda found: msgspec.structs.replace(_required(found), pinned=pinned))


def _choose(store: Store, change: Callable[[Current | None], Current]) -> Choice:
    before, chosen = checkpoints.change_current(store, change)
    if before and before.version != chosen.version and not _is_there(store, chosen.version):
        checkpoints.change_current(store, lambda found: before if found == chosen else found or before)
        raise Conflict("version_unusable", f"version {chosen.version} was deleted meanwhile: it was one of the oldest")
    return Choice(version=chosen.version, pinned=chosen.pinned, before=before.version if before else None)


def _is_there(store: Store, version: int) -> bool:
    return version in {
        *checkpoints.versions(store),
        *checkpoints.deltas(store),
        *checkpoints.versions(store, refused=True),
    }


def _required(found: Current | None) -> Current:
    if found is None:
        raise Conflict("no_current_version", "current.json names no version yet, or is damaged: activate one")
    return found


def _current(store: Store) -> Current | None:
    """None also where it cannot be read."""
    try:
        return checkpoints.read_current(store)
    except CheckpointError:
        return None


def _verify(store: Store, version: int) -> Manifest:
    try:
        return checkpoints.verify(store, version)
    except CheckpointError as error:
        if error.code == "missing_version":
            raise NotFound("not_found", error.detail) from None
        raise Conflict("version_unusable", str(error)) from None


def _row(store: Store, version: int, current: Current | None) -> Version:
    try:
        manifest = checkpoints.load_manifest(store, version)
    except CheckpointError as error:
        return Version(version=version, state="unreadable", reason=str(error))
    return Version(
        version=version,
        state=_state(manifest, current),
        created_at=_time(manifest.created_at_ms),
        data_timestamp=_time(manifest.data_timestamp_ms),
        base=manifest.base.version if manifest.base else None,
        metrics=manifest.metrics,
        reason=manifest.refused,
    )


def _state(manifest: Manifest, current: Current | None) -> State:
    if current and current.version == manifest.version:
        return "current"
    return "refused" if manifest.refused else "available"


def _time(time_ms: int) -> datetime | None:
    """None for none, and for one beyond the calendar: who writes to the log can date so."""
    try:
        return from_millis(time_ms) if time_ms else None
    except (ValueError, OverflowError):
        return None
