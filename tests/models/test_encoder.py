"""The encoder, column by column in C, against the plain one: a value at a time, as the rules are told."""

import math

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from models.features import Encoder, FeatureError
from models.spec import Column, FeatureSpec, Field

WIDTHS_MIXED = FeatureSpec.from_toml(
    "".join(
        f'[[fields]]\nname="{name}"\nside="{side}"\nkind="{kind}"\nwidth={width}\n{more}\n'
        for name, side, kind, width, more in [
            ("id", "user", "categorical", 3, 'source="id"\nbuckets=5'),
            ("user-age", "user", "numeric", 2, "mean=30.0\nstd=1e-3"),
            ("country", "user", "categorical", 3, "buckets=50"),
            ("class", "context", "multi_hot", 2, "buckets=9\nmax_values=2"),
            ("id", "item", "categorical", 4, 'source="id"\nbuckets=1000'),
            ("topics", "item", "multi_hot", 4, 'buckets=30\nmax_values=3\npooling="sum"'),
            ("caf\u00e9 1", "item", "categorical", 2, "buckets=70"),
            ("price", "item", "numeric", 2, ""),
            ("brand", "item", "categorical", 2, "buckets=700"),
            ("tags", "item", "multi_hot", 2, "buckets=30\nmax_values=2"),
        ]
    )
)
NAMES = {
    side: [one.name for one in WIDTHS_MIXED.fields if one.side == side and one.source == "features"]
    for side in ("user", "context", "item")
}


def plain(encoder, ids, rows):
    """(B, Ki) rows and weights, or the (code, path) of the first fault."""
    layout = encoder.spec.item
    index, weight = np.zeros((len(ids), layout.slots), np.int32), np.zeros((len(ids), layout.slots), np.float32)
    for place, row in enumerate(rows):
        unknown = [one for one in row or {} if one not in NAMES["item"]]
        if unknown:
            return "unknown_feature", f"candidates[{place}].features.{unknown[0]}"
    for column in layout.columns:
        for place, (one, row) in enumerate(zip(ids, rows, strict=True)):
            value = one if column.field.source == "id" else (row or {}).get(column.field.name)
            bag = plain_value(column, value)
            if isinstance(bag, str):
                return bag, f"candidates[{place}].features.{column.field.name}"
            for slot in range(column.field.slots):
                at, amount = bag[slot] if slot < len(bag) else (0, 0.0)
                index[place, column.start + slot], weight[place, column.start + slot] = column.offset + at, amount
    return index, weight


def plain_value(column: Column, value):
    """(row of the field, weight) of each slot, or a code."""
    field = column.field
    if value is None:
        return [(0, 1.0)]
    if field.kind == "numeric":
        return plain_number(field, value)
    if field.kind == "categorical":
        bucket = plain_bucket(column, value)
        return bucket if isinstance(bucket, str) else [(bucket, 1.0)]
    return plain_bag(column, value)


def plain_number(field: Field, value):
    if type(value) not in (int, float):
        return "feature_type"
    if not -1.7976931348623157e308 < value < 1.7976931348623157e308:
        return "feature_not_finite"
    return [(1, min(max((float(value) - field.mean) / field.std, -10.0), 10.0))]


def plain_bag(column: Column, value):
    field = column.field
    if type(value) not in (list, tuple):
        return "feature_type"
    if len(value) > field.max_values:
        return "feature_too_many_values"
    buckets = [plain_bucket(column, one) for one in value]
    if "feature_type" in buckets:
        return "feature_type"
    return [(one, 1.0 / len(value) if field.pooling == "mean" else 1.0) for one in buckets] or [(0, 1.0)]


def plain_bucket(column: Column, value):
    if type(value) not in (str, int, bool):
        return "feature_type"
    text = str(value).lower() if type(value) is bool else str(value)
    return 1 + xxhash.xxh3_64_intdigest(text.encode(), column.seed) % column.field.buckets


SIMPLE = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.sampled_from(["1", 1, True, "true"])
)
ODD = st.one_of(st.floats(), st.just(10**400), st.dictionaries(st.text(max_size=1), st.none(), max_size=1))
FITTING = {
    "categorical": SIMPLE,
    "numeric": st.one_of(st.integers(), st.floats(-1.5e308, 1.5e308), st.none()),
    "multi_hot": st.lists(st.one_of(st.text(max_size=3), st.integers(), st.booleans()), max_size=2),
}
FITTING_ROW = st.fixed_dictionaries(
    {},
    optional={one.name: FITTING[one.kind] for one in WIDTHS_MIXED.fields if one.side == "item" and one.name != "id"},
)
ANY_VALUE = st.one_of(SIMPLE, ODD, st.lists(st.one_of(SIMPLE, ODD), max_size=4))
ANY_ROW = st.dictionaries(st.sampled_from([*NAMES["item"], "unheard", "of"]), ANY_VALUE, max_size=6)


@given(rows=st.lists(st.one_of(st.none(), FITTING_ROW), min_size=1, max_size=6))
@example(rows=[{"brand": value} for value in ("1", 1, True, "true", None)])
def test_values_that_fit_are_encoded_as_the_plain_encoder_does(rows):
    encoder = Encoder(WIDTHS_MIXED)
    ids = [f"item-{number}" for number in range(len(rows))]
    expected = plain(encoder, ids, rows)
    for ours, theirs in zip(encoder.items(ids, rows), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@given(rows=st.lists(st.one_of(st.none(), ANY_ROW), min_size=1, max_size=4))
@example(rows=[{"brand": 1.0}])
@example(rows=[{"tags": [None]}, {"brand": []}])
def test_what_does_not_fit_is_refused_as_the_plain_encoder_does(rows):
    encoder = Encoder(WIDTHS_MIXED)
    ids = [f"item-{number}" for number in range(len(rows))]
    expected = plain(encoder, ids, rows)
    if isinstance(expected[0], str):
        with pytest.raises(FeatureError) as caught:
            encoder.items(ids, rows)
        assert (caught.value.code, caught.value.path) == expected
    else:
        np.testing.assert_array_equal(encoder.items(ids, rows), expected)


@given(rows=st.lists(st.one_of(st.none(), FITTING_ROW), min_size=1, max_size=4), user=FITTING_ROW)
def test_json_decoded_into_the_encoder_s_rows_is_encoded_as_dictionaries_are(rows, user):
    encoder = Encoder(WIDTHS_MIXED)
    ids = [f"item-{number}" for number in range(len(rows))]
    body = msgspec.json.encode([row and {**row, "price": 1.5} for row in rows])
    try:
        typed = msgspec.json.decode(body, type=list[encoder.rows.item | None])
    except msgspec.ValidationError:  # an integer that no JSON reader of ours takes
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body)
        return
    untyped = msgspec.json.decode(body)
    for ours, theirs in zip(encoder.items(ids, typed), encoder.items(ids, untyped), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_structs_and_dictionaries_may_stand_together():
    encoder = Encoder(WIDTHS_MIXED)
    typed = msgspec.convert({"brand": "b"}, encoder.rows.item)
    mixed, _ = encoder.items(["x", "x", "x"], [typed, {"brand": "b"}, None])
    assert mixed[0].tolist() == mixed[1].tolist() != mixed[2].tolist()
    user = msgspec.convert({"user-age": 31.0}, encoder.rows.user)
    for ours, theirs in zip(encoder.context(user=user), encoder.context(user={"user-age": 31.0}), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_rows_are_no_rows():
    index, weight = Encoder(WIDTHS_MIXED).items([], [])
    assert index.shape == weight.shape == (0, WIDTHS_MIXED.item.slots)


def test_a_number_far_out_is_clipped_even_where_it_overflows():
    encoder = Encoder(WIDTHS_MIXED)
    for value, expected in ((1.7e308, 10.0), (-1.7e308, -10.0), (30.0, 0.0)):
        _, weight = encoder.context(user={"user-age": value})
        assert expected in weight
    assert math.isfinite(weight.sum())
