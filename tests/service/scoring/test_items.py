"""The items in memory: what was stored is found as ranking would have encoded it, bit for bit."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from models.features import Encoder, FeatureError, item_hashes
from models.spec import FeatureSpec
from models.types import Array
from service.scoring.items import Found, ItemStore

SPEC = FeatureSpec.from_toml("""
[[fields]]
name = "country"
side = "user"
kind = "categorical"
buckets = 50

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 200

[[fields]]
name = "price"
side = "item"
kind = "numeric"
width = 4

[[fields]]
name = "topics"
side = "item"
kind = "multi_hot"
buckets = 30
max_values = 3
""")

CATEGORICAL = FeatureSpec(tuple(field for field in SPEC.fields if field.kind == "categorical"))

RED, BLUE = {"price": 2.5, "topics": ["red", 7]}, {"topics": []}


def complete(spec: FeatureSpec = SPEC, *, max_items: int = 100) -> ItemStore:
    store = ItemStore(Encoder(spec), max_items=max_items)
    store.complete = True
    return store


def found(store: ItemStore, *ids: str) -> Found:
    answer = store.find(ids)
    assert answer is not None
    return answer


def arrays(answer: Found) -> list[Array]:
    return [getattr(answer, field.name) for field in fields(answer)]


def assert_holds(store: ItemStore, items: Mapping[str, Mapping[str, Any]], *, spec: FeatureSpec = SPEC) -> None:
    """Exactly as ranking encodes them."""
    ids = list(items)
    answer = found(store, *ids)
    index, weight = Encoder(spec).items(ids, list(items.values()))
    assert answer.known.all()
    for ours, theirs in zip(arrays(answer)[1:], (index, weight, item_hashes(ids)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert len(store) == len(items)


def test_stored_items_are_found_as_they_would_be_encoded() -> None:
    store, items = complete(), {"a": RED, "b": BLUE, "c": {}}
    assert store.update(items) == Counter({"stored": 3})
    assert_holds(store, items)
    assert_holds(store, {"c": {}, "a": RED, "b": BLUE})


def test_of_a_spec_of_categories_too() -> None:
    store, items = complete(CATEGORICAL), {"a": {}, "b": {}}
    store.update(items)
    assert_holds(store, items, spec=CATEGORICAL)


def test_what_is_not_known_is_zero_and_has_its_hash() -> None:
    store = complete()
    store.update({"a": RED})
    answer = found(store, "x", "a", "y")
    assert answer.known.tolist() == [False, True, False]
    np.testing.assert_array_equal(answer.item_hash, item_hashes(["x", "a", "y"]))
    assert not answer.index[[0, 2]].any()
    assert not answer.weight[[0, 2]].any()


def test_an_empty_store_has_nothing_to_say_once_it_is_complete() -> None:
    store = ItemStore(Encoder(SPEC), max_items=3)
    assert not found(store, "a").known.any()
    store.complete = True
    assert store.find(["a"]) is None
    store.update({"a": RED})
    store.update({"a": None})
    assert store.find(["a"]) is None


def test_what_was_found_stays_as_it_was() -> None:
    store = complete()
    store.update({"a": RED})
    before = found(store, "a")
    copies = [array.copy() for array in arrays(before)]
    store.update({"a": BLUE})
    for array, copy in zip(arrays(before), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert_holds(store, {"a": BLUE})


def test_beyond_the_bound_old_items_are_updated_and_new_ones_refused() -> None:
    store = complete(max_items=2)
    assert store.update({"a": RED, "b": BLUE, "c": RED}) == Counter({"stored": 2, "full": 1})
    assert store.update({"c": RED, "a": BLUE}) == Counter({"stored": 1, "full": 1})
    assert_holds(store, {"a": BLUE, "b": BLUE})
    assert store.update({"b": None, "nobody": None, "c": RED}) == Counter({"deleted": 1, "stored": 1})
    assert_holds(store, {"a": BLUE, "c": RED})


@pytest.mark.parametrize(
    ("features", "code"),
    [
        ({"colour": "red"}, "unknown_feature"),
        ({"price": "2"}, "feature_type"),
        ({"price": 10**400}, "feature_not_finite"),
        ({"topics": ["a"] * 4}, "feature_too_many_values"),
    ],
)
def test_features_that_do_not_fit_leave_the_item_unknown(features: dict[str, Any], code: str) -> None:
    store = complete()
    store.update({"a": RED, "b": BLUE})
    assert store.update({"b": RED, "a": features, "c": features, "d": BLUE}) == Counter({"stored": 2, "misfit": 2})
    assert_holds(store, {"b": RED, "d": BLUE})
    assert found(store, "a", "c").known.tolist() == [False, False]
    store.check(["b", "a"], [BLUE, RED])
    with pytest.raises(FeatureError) as caught:
        store.check(["b", "a"], [BLUE, features])
    assert caught.value.code == code
    assert caught.value.path.startswith("candidates[1].features.")


def test_what_a_scan_did_not_meet_is_gone() -> None:
    store = complete(max_items=5_000)
    everything = {f"i-{number}": BLUE for number in range(3_000)}
    store.update(everything)
    store.begin_scan()
    store.update({one: RED for one in everything if one not in ("i-0", "i-2999")})
    assert sum(store.forget_unscanned()) == 2
    assert_holds(store, {one: RED for one in everything if one not in ("i-0", "i-2999")})
    assert not found(store, "i-0", "i-2999").known.any()
    store.begin_scan()
    assert sum(store.forget_unscanned()) == 2_998
    assert store.find(["i-1"]) is None


def test_which_specs_the_rows_fit() -> None:
    store = complete()
    assert store.fits(SPEC)
    assert store.fits(FeatureSpec(tuple(field for field in SPEC.fields if field.side == "item")))
    assert not store.fits(CATEGORICAL)


names = st.sampled_from(["a", "b", "c", "\x00", "é", "💛", " "])
changes = st.dictionaries(names, st.sampled_from([RED, BLUE, {}, None, {"price": "wrong"}]))


@given(st.lists(changes, max_size=12))
def test_it_is_a_dictionary_with_a_bound(steps: list[dict[str, Any]]) -> None:
    """Against the plainest thing that does the same."""
    store, plain = complete(max_items=3), {}
    for step in steps:
        store.update(step)
        for one, features in step.items():
            if features is None or features == {"price": "wrong"}:
                plain.pop(one, None)
        for one, features in step.items():
            if features in (RED, BLUE, {}) and (one in plain or len(plain) < 3):
                plain[one] = features
    if plain:
        assert_holds(store, plain)
    else:
        assert store.find(["a"]) is None
