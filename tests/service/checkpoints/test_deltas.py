"""Delta versions: found by who needs them, verified down to the full version, and gone with it."""

from typing import Any

import msgspec
import numpy as np
import pytest

from service import checkpoints
from service.checkpoints import Base, Manifest, Store
from service.errors import CheckpointError

DELTA = {"rows/embedding.item_8": np.array([1], dtype=np.int32), "mlp.out.bias": np.array(0.25, dtype=np.float32)}


def save_delta(kit: Any, store: Store, version: int, below: Manifest, **arrays: Any) -> Manifest:
    base = Base(version=below.version, digest=below.digest, full=below.base.full if below.base else below.version)
    draft = kit.manifest(version, base=base)
    return checkpoints.save_delta(store, draft, delta={**DELTA, **arrays}, golden=kit.golden)


@pytest.fixture
def links(place: Any, kit: Any) -> list[Manifest]:
    """A full version and two deltas on it."""
    found = [kit.save(place.store, 10)]
    for version in (12, 15):
        found.append(save_delta(kit, place.store, version, found[-1]))
    return found


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert caught.value.detail
    return caught.value.code


def test_a_delta_is_found_by_its_number_with_all_that_it_rests_on(place: Any, links: list[Manifest]) -> None:
    store = place.again
    assert checkpoints.versions(store) == [10]
    assert checkpoints.deltas(store) == {12: 10, 15: 10}
    assert checkpoints.previous(store, 15) == 10
    newest = checkpoints.load_manifest(store, 15)
    assert (newest, newest.kind) == (links[2], "delta")
    assert checkpoints.chain(store, newest) == links
    assert checkpoints.chain(store, newest, known=links[0]) == links[1:]
    assert checkpoints.chain(store, newest, known=links[1]) == links[2:]
    assert checkpoints.chain(store, links[0], known=links[2]) == links[:1]
    loaded = checkpoints.load_delta(store, newest)
    assert {name: one.tobytes() for name, one in loaded.items()} == {n: one.tobytes() for n, one in DELTA.items()}
    assert checkpoints.load_golden(store, newest).keys() == {"age/in/lambda", "age/out/score"}
    assert checkpoints.verify(store, 15) == newest
    assert 0 < newest.bytes < links[0].bytes


def test_who_knows_another_base_of_that_number_gets_the_whole_chain(place: Any, links: list[Manifest]) -> None:
    other = msgspec.structs.replace(links[1], digest="0" * 64)
    assert checkpoints.chain(place.store, links[2], known=other) == links


def test_a_full_version_goes_before_a_delta_of_its_number(place: Any, kit: Any, links: list[Manifest]) -> None:
    full = kit.save(place.store, 15)
    assert checkpoints.load_manifest(place.again, 15) == full
    assert checkpoints.chain(place.again, full) == [full]
    assert checkpoints.chain(place.again, save_delta(kit, place.store, 20, links[2])) != [
        full
    ]  # the delta still stands


def test_a_full_version_may_take_the_place_of_its_twin(place: Any, kit: Any, links: list[Manifest]) -> None:
    """Whoever has the delta needs not the full version of the same weights, to go on from there."""
    twin = kit.save(place.store, 15, draft=kit.manifest(15, twin=links[2].digest))
    base = Base(version=15, digest=links[2].digest, full=15)
    found = checkpoints.save_delta(place.store, kit.manifest(20, base=base), delta=DELTA, golden=kit.golden)
    assert checkpoints.chain(place.again, found) == [twin, found]
    for known in (links[2], twin):
        assert checkpoints.chain(place.again, found, known=known) == [found]
    kit.save(place.store, 15)  # no twin of anybody
    assert checkpoints.deltas(place.again) == {12: 10, 15: 10}


def test_a_base_that_is_another_now_is_refused(place: Any, kit: Any, links: list[Manifest]) -> None:
    other = msgspec.structs.replace(links[1], digest="0" * 64)
    found = save_delta(kit, place.store, 20, other)
    assert refusal(checkpoints.chain, place.again, found) == "base_changed"
    assert refusal(checkpoints.verify, place.again, 20) == "base_changed"
    assert checkpoints.chain(place.again, found, known=other) == [found]  # who has it does not ask


def test_what_rests_on_a_version_goes_when_that_is_written_anew(place: Any, kit: Any, links: list[Manifest]) -> None:
    kit.save(place.store, 10)
    assert checkpoints.deltas(place.again) == {}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("versions/000000000010/weights.safetensors", "hash_mismatch"),
        ("deltas/000000000010-000000000012/delta.safetensors", "hash_mismatch"),
        ("deltas/000000000010-000000000012/manifest.json", "unreadable_manifest"),
    ],
)
def test_damage_anywhere_below_is_seen(place: Any, links: list[Manifest], path: str, code: str) -> None:
    place.write(path, b"{")
    assert refusal(checkpoints.verify, place.again, 15) == code


def test_a_missing_link_is_missed(place: Any, links: list[Manifest]) -> None:
    place.store.discard("deltas/000000000010-000000000012")
    assert refusal(checkpoints.chain, place.again, links[2]) == "missing_file"


def test_a_delta_that_is_not_finite_is_refused(place: Any, kit: Any, links: list[Manifest]) -> None:
    nan = {"mlp.out.bias": np.array(np.nan, dtype=np.float32)}
    found = save_delta(kit, place.store, 20, links[2], **nan)
    assert refusal(checkpoints.load_delta, place.store, found) == "not_finite"


def test_deltas_go_with_the_full_version_at_their_bottom(place: Any, kit: Any, links: list[Manifest]) -> None:
    save_delta(kit, place.store, 25, kit.save(place.store, 20))
    assert checkpoints.deltas(place.store) == {12: 10, 15: 10, 25: 20}
    kit.save(place.store, 30, keep=2)
    assert checkpoints.versions(place.again) == [20, 30]
    assert checkpoints.deltas(place.again) == {25: 20}


def test_what_serves_stays_with_all_that_it_rests_on(place: Any, kit: Any, links: list[Manifest]) -> None:
    checkpoints.set_current(place.store, links[1])
    for version in (20, 30):
        kit.save(place.store, version, keep=1)
    assert checkpoints.versions(place.again) == [10, 30]
    assert checkpoints.verify(place.again, 12) == links[1]
