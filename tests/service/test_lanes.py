"""By hand: what is chosen serves and stays, and nothing that is damaged or refused is chosen by mistake."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import checkpoints, lanes
from service.checkpoints import LocalStore, Manifest
from service.errors import Conflict, NotFound, ServiceError


def save(store: LocalStore, version: int, *, refused: str = "", created_at_ms: int = 1_700_000_000_000) -> Manifest:
    draft = Manifest(
        lane="default",
        version=version,
        created_at_ms=created_at_ms,
        data_timestamp_ms=1_600_000_000_000 if version else 0,
        spec="",
        spec_hash="0123456789abcdef",
        network={"hidden": [8]},
        strategies={},
        positions={"agerank:{0}:served": "1-0"},
        metrics={"pcoc": 1.0},
        click_times_ms=[],
        refused=refused,
    )
    weights = {"w": np.full(3, version, dtype=np.float32)}
    return checkpoints.save(store, draft, weights=weights, state={}, golden={}, graphs={}, keep=9)


def damage(store: LocalStore, version: int, name: str = "weights.safetensors") -> None:
    path = store.root / "versions" / f"{version:012d}" / name
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Versions 0, 3, 6, 9, of which 9 is current, and 7 refused."""
    store = LocalStore(tmp_path)
    for version in (0, 3, 6, 9):
        newest = save(store, version)
    save(store, 7, refused="pcoc: 9 clicks predicted for each")
    checkpoints.set_current(store, newest)
    return store


def current(store: LocalStore) -> tuple[int, bool]:
    found = checkpoints.read_current(store)
    assert found is not None
    return found.version, found.pinned


def refusal(call: Any, *args: Any, **given: Any) -> ServiceError:
    with pytest.raises((Conflict, NotFound)) as caught:
        call(*args, **given)
    assert caught.value.detail
    return caught.value


def test_the_list_tells_what_became_of_each(store: LocalStore) -> None:
    damage(store, 3, "manifest.json")
    found = lanes.overview(store, "default")
    assert (found.lane, found.current, found.pinned) == ("default", 9, False)
    assert [(one.version, one.state) for one in found.versions] == [
        (9, "current"),
        (7, "refused"),
        (6, "available"),
        (3, "unreadable"),
        (0, "available"),
    ]
    assert found.versions[1].reason == "pcoc: 9 clicks predicted for each"
    assert found.versions[3].reason.startswith("unreadable_manifest: ")
    assert found.versions[0].metrics == {"pcoc": 1.0}
    assert found.versions[0].created_at.year == 2023
    assert found.versions[4].data_timestamp is None


def test_an_empty_lane_is_one(tmp_path: Path) -> None:
    empty = LocalStore(tmp_path / "nowhere")
    assert lanes.overview(empty, "default") == lanes.Versions(lane="default", current=None, pinned=False, versions=[])
    assert refusal(lanes.rollback, empty).code == refusal(lanes.pin, empty, True).code == "no_current_version"
    assert refusal(lanes.activate, empty, 0).code == "not_found"


def test_a_version_is_shown_whole_or_not_at_all(store: LocalStore) -> None:
    found = lanes.detail(store, 9)
    assert (found.version, found.state, found.lane, found.reason) == (9, "current", "default", "")
    assert found.files.keys() == {"weights.safetensors", "state.safetensors", "golden.safetensors"}
    assert lanes.detail(store, 7).state == "refused"
    damage(store, 9)
    error = refusal(lanes.detail, store, 9)
    assert (error.code, error.status) == ("version_unusable", 409)
    assert "hash_mismatch" in error.detail
    assert refusal(lanes.detail, store, 8).status == 404


def test_a_version_dated_beyond_the_calendar_is_listed_without_its_time(store: LocalStore) -> None:
    save(store, 12, created_at_ms=2**63)
    assert lanes.overview(store, "default").versions[0].created_at is None
    assert lanes.detail(store, 12).created_at is None


def test_what_is_activated_stays_until_it_is_unpinned(store: LocalStore) -> None:
    assert lanes.activate(store, 6) == lanes.Choice(version=6, pinned=True, before=9)
    newer = save(store, 12)
    assert not checkpoints.advance(store, newer), "this is how the trainer asks"
    assert current(store) == (6, True)
    assert lanes.pin(store, False) == lanes.Choice(version=6, pinned=False, before=6)
    assert checkpoints.advance(store, newer)
    assert current(store) == (12, False)


def test_without_a_pin_the_next_version_follows(store: LocalStore) -> None:
    assert lanes.activate(store, 6, pin=False) == lanes.Choice(version=6, pinned=False, before=9)
    assert checkpoints.advance(store, save(store, 12))
    assert current(store) == (12, False)


def test_a_rollback_goes_back_one_version_after_the_other_and_pins(store: LocalStore) -> None:
    assert lanes.rollback(store) == lanes.Choice(version=6, pinned=True, before=9)
    assert lanes.rollback(store) == lanes.Choice(version=3, pinned=True, before=6)
    assert lanes.rollback(store).version == 0
    assert refusal(lanes.rollback, store).code == "no_earlier_version"
    assert current(store) == (0, True)


def test_a_rollback_passes_over_what_is_damaged(store: LocalStore) -> None:
    damage(store, 6)
    assert lanes.rollback(store).version == 3
    assert refusal(lanes.activate, store, 6).code == "version_unusable"
    assert current(store) == (3, True)


def test_what_the_guard_refused_serves_by_force_alone(store: LocalStore) -> None:
    error = refusal(lanes.activate, store, 7)
    assert error.code == "version_refused"
    assert "pcoc" in error.detail
    assert current(store) == (9, False)
    assert lanes.activate(store, 7, force=True).version == 7
    assert checkpoints.load_manifest(store, 7).refused
    assert lanes.rollback(store).version == 6


def test_a_damaged_current_json_is_healed_by_a_choice(store: LocalStore) -> None:
    (store.root / "current.json").write_bytes(b"{")
    assert lanes.overview(store, "default").current is None
    assert refusal(lanes.rollback, store).code == "no_current_version"
    assert lanes.activate(store, 6) == lanes.Choice(version=6, pinned=True, before=None)


def test_a_trainer_that_publishes_meanwhile_loses_against_a_pin(store: LocalStore) -> None:
    """The two write current.json at the same time, over and over; whoever is asked last knows what the other did."""
    newest = checkpoints.load_manifest(store, 9)
    done = threading.Event()

    def trainer() -> None:
        while not done.wait(0.001):  # with no pause at all the other may be unlucky each time that it tries
            checkpoints.advance(store, newest)

    thread = threading.Thread(target=trainer)
    thread.start()
    try:
        for _ in range(50):
            assert lanes.activate(store, 3).version == 3
            for _ in range(3):
                assert current(store) == (3, True)
            lanes.pin(store, False)
    finally:
        done.set()
        thread.join()


class Hurried(LocalStore):
    """The trainer deletes version 0 before the operator's choice is written."""

    def put(self, name: str, content: bytes, *, stamp: str | None) -> bool:
        if 0 in checkpoints.versions(self):
            self.discard(f"versions/{0:012d}")
        return super().put(name, content, stamp=stamp)


def test_what_was_deleted_meanwhile_is_not_chosen(store: LocalStore) -> None:
    assert refusal(lanes.activate, Hurried(store.root), 0).code == "version_unusable"
    assert current(store) == (9, False)


def test_a_pin_on_what_is_gone_can_be_taken_away(store: LocalStore) -> None:
    lanes.pin(store, True)
    store.discard(f"versions/{9:012d}")
    lanes.pin(store, False)
    assert current(store) == (9, False)
