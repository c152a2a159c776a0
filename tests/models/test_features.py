"""The encoder: stable hashes, every kind of value, every kind of refusal."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Encoder, FeatureError, item_hashes
from models.spec import FeatureSpec

USER = {"country": "nl", "interests": ["a", 7, True]}


def columns(layout):
    return {column.field.name: column for column in layout.columns}


def test_published_hashes_never_change():
    """Weights are tied to these rows: another number here means retraining every model."""
    spec = FeatureSpec.from_toml('[[fields]]\nname="a"\nside="item"\nkind="categorical"\nbuckets=1000000\nwidth=2')
    index, _ = Encoder(spec).items(["x", "y"], [{"a": "caf\u00e9"}, {"a": 42}])
    assert index.tolist() == [[301914], [899508]]
    assert item_hashes(["item-1"]).tolist() == [12172481486005482930]
    assert spec.hash == "beabb7212c800b92"


def test_shapes_and_weights(spec):
    batch = Encoder(spec).batch(
        ["a", "b"],
        [{"price": 2.5, "topics": ["t1", "t2"]}, None],
        user=USER,
        context={"hour": 19},
    )
    assert [array.shape for array in batch] == [(1, 6), (1, 6), (2, 5), (2, 5)]
    context, item = columns(spec.context), columns(spec.item)
    interests = slice(context["interests"].start, context["interests"].start + 4)
    np.testing.assert_allclose(batch.context_weight[0, interests], [1 / 3, 1 / 3, 1 / 3, 0])  # mean
    assert batch.context_weight[0, context["hour"].start] == 1.0  # (19 - 12) / 7
    topics = slice(item["topics"].start, item["topics"].start + 3)
    assert batch.item_weight[0, topics].tolist() == [1, 1, 0]  # sum
    assert batch.item_weight[0, item["price"].start] == 2.5
    missing = item["price"].offset
    assert batch.item_index[1, item["price"].start] == missing
    assert batch.item_weight[1, item["price"].start] == 1.0


@pytest.mark.parametrize("first", [{}, None], ids=["structs", "dictionaries"])
def test_who_has_no_feature_at_all_is_told(spec, first):
    encoder = Encoder(spec)
    given = [first, {"price": 0.0}, {"topics": []}, {"price": None, "topics": None}]
    features = given if first is None else [msgspec.convert(one, encoder.rows.item) for one in given]
    index, weight, without = encoder.candidates(list("abcd"), features)
    assert list(without) == [0, 3]
    for ours, theirs in zip((index, weight), encoder.items(list("abcd"), given), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert list(encoder.candidates(["a"], [{"price": 1.0, "topics": ["x"]}])[2]) == []
    by_id = FeatureSpec.from_toml('[[fields]]\nname="a"\nside="item"\nkind="categorical"\nsource="id"\nbuckets=9')
    assert list(Encoder(by_id).candidates(["a", "b"], [Encoder(by_id).rows.item()] * 2)[2]) == [0, 1]


def test_a_field_may_take_the_id(spec):
    first, _ = Encoder(spec).items(["a", "b", "a"], [None] * 3)
    start = columns(spec.item)["id"].start
    assert first[0, start] == first[2, start] != first[1, start]


@given(value=st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63), st.booleans()))
def test_every_value_lands_in_its_fields_rows(spec, value):
    index, weight = Encoder(spec).context(user={"country": value})
    column = columns(spec.context)["country"]
    assert column.offset < index[0, column.start] <= column.offset + column.field.buckets
    assert weight[0, column.start] == 1.0
    same = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else str(value)
    if not isinstance(value, bool):
        again, _ = Encoder(spec).context(user={"country": same})
        assert again[0, column.start] == index[0, column.start]


def test_missing_null_and_empty_are_the_same_row(spec):
    for features in ({}, {"country": None}, {"country": None, "interests": []}):
        index, weight = Encoder(spec).context(user=features)
        for name in ("country", "interests", "hour"):
            column = columns(spec.context)[name]
            assert index[0, column.start] == column.offset
            assert weight[0, column.start] == 1.0


def test_outliers_are_clipped(spec):
    _, weight = Encoder(spec).context(context={"hour": 1e9})
    assert weight[0, columns(spec.context)["hour"].start] == 10.0


@pytest.mark.parametrize(
    ("features", "code", "path"),
    [
        ({"contry": "nl"}, "unknown_feature", "user.features.contry"),
        ({"country": 1.5}, "feature_type", "user.features.country"),
        ({"country": ["nl"]}, "feature_type", "user.features.country"),
        ({"interests": "a"}, "feature_type", "user.features.interests"),
        ({"interests": [{}]}, "feature_type", "user.features.interests"),
        ({"interests": list("abcde")}, "feature_too_many_values", "user.features.interests"),
    ],
)
def test_refuses_user_features(spec, features, code, path):
    with pytest.raises(FeatureError) as caught:
        Encoder(spec).context(user=features)
    assert (caught.value.code, caught.value.path) == (code, path)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("9", "feature_type"),
        (True, "feature_type"),
        ([1], "feature_type"),
        (float("nan"), "feature_not_finite"),
        (float("inf"), "feature_not_finite"),
        (10**400, "feature_not_finite"),
    ],
)
def test_refuses_numbers_and_names_the_candidate(spec, value, code):
    with pytest.raises(FeatureError) as caught:
        Encoder(spec).items(["a", "b"], [None, {"price": value}])
    assert (caught.value.code, caught.value.path) == (code, "candidates[1].features.price")
