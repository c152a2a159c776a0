"""The feature spec: what it refuses and what its hash stands for."""

import pytest

from models.spec import FeatureSpec, SpecError


def field(**changes):
    values = {"name": "a", "side": "item", "kind": "categorical", "buckets": 5, "width": 2, **changes}
    lines = (f"{key} = {value if isinstance(value, int | float) else repr(value)}" for key, value in values.items())
    return "[[fields]]\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[fields]", "not TOML"),
        ("x = 1", r"expected \[\[fields\]\]"),
        ("", r"expected \[\[fields\]\]"),
        (field(widht=3), "unknown keys"),
        (field(name=""), "a name must not be empty"),
        (field(name='a"b'), "quotation mark"),
        (field(name="a\\b"), "backslash"),
        (field().replace("'a'", '"a\\u0007"'), "control"),
        (field(side="users"), "side"),
        (field(kind="categoric"), "kind"),
        (field(kind="sequence"), "sequence"),
        (field(buckets=0), "buckets"),
        (field(buckets=2**31 - 1), "more than 2147483647 rows in all: lower their buckets"),
        (field(width=0), "width"),
        (field(width="wide"), "width"),
        (field(kind="numeric", std=0), "std"),
        (field(kind="numeric", std=float("nan")), "finite"),
        (field(kind="numeric", mean=float("inf")), "finite"),
        (field(pooling="max"), "pooling"),
        (field(side="context", source="id"), "source"),
        (field() + field(), "twice"),
        (field(side="user"), "item field"),
        ("[[fields]]\nside = 'item'\nkind = 'numeric'", "name"),
    ],
)
def test_refuses_a_broken_spec_and_says_where(text, message):
    with pytest.raises(SpecError, match=message):
        FeatureSpec.from_toml(text)


def test_tables_hold_the_fields_of_one_side_and_width(spec):
    layout = {table.name: (table.rows, table.width) for side in (spec.context, spec.item) for table in side.tables}
    assert layout == {"context_3": (12 + 2, 3), "context_5": (18, 5), "item_2": (14 + 2, 2), "item_5": (98, 5)}
    assert (spec.context.slots, spec.context.width) == (1 + 1 + 4, 3 + 3 + 5)
    assert (spec.item.slots, spec.item.width) == (1 + 3 + 1, 2 + 2 + 5)


def test_slots_of_a_table_are_adjacent_and_disjoint(spec):
    for side in (spec.context, spec.item):
        taken = [
            slot
            for table in side.tables
            for column in table.columns
            for slot in range(column.start, column.start + column.field.slots)
        ]
        assert taken == list(range(side.slots))


def test_the_hash_changes_with_the_encoding_alone():
    one = FeatureSpec.from_toml(field())
    assert one.hash == FeatureSpec.from_toml("# a comment\n" + field()).hash
    assert one.hash != FeatureSpec.from_toml(field(buckets=6)).hash
    assert one.hash != FeatureSpec.from_toml(field(name="b")).hash
