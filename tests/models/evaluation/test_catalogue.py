import json
from typing import Any

import numpy as np
import pytest

from models.evaluation.catalogue import Known, learned, read
from models.evaluation.items import Items
from models.features import Encoder
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.spec import FeatureSpec
from models.types import Batch

SPEC = FeatureSpec.from_toml("""
fields = [
  {name = "features", side = "user", kind = "multi_hot", buckets = 16, max_values = 5, width = 3},
  {name = "words", side = "item", kind = "multi_hot", buckets = 97, max_values = 4, width = 5},
  {name = "id", side = "item", kind = "categorical", source = "id", buckets = 211, width = 2},
]
""")
NETWORK = ClickNetwork(SPEC, NetworkConfig(hidden=(16, 8)))


def lines(*items: Any) -> list[bytes]:
    return [item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n" for item in items]


def test_items_of_the_past_are_those_with_impressions() -> None:
    known, past = read(
        lines(
            {"id": "a", "features": {"words": ["x", "y"]}},
            b"\n",
            {"id": "b", "features": {"words": ["x"]}, "impressions": 7, "clicks": 2},
            {"id": "c"},
        ),
        SPEC,
    )
    assert known == {"a": {"words": ["x", "y"]}, "b": {"words": ["x"]}, "c": {}}
    assert past == [Known(id="b", features={"words": ["x"]}, impressions=7, clicks=2)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2"),
        (b'{"id": "\xff"}', "line 2"),
        ({"features": {}}, "line 2: .*id"),
        ({"id": ""}, "line 2: .*length"),
        ({"id": "a"}, "line 2: a for the second time"),
        ({"id": "b", "impressions": 3, "clicks": 4}, "line 2: 4 clicks on 3 impressions"),
        ({"id": "b", "impressions": -1}, "line 2: .*>= 0"),
        ({"id": "b", "impressions": 10**18}, "line 2: .*<= 9007199254740992"),
        ({"id": "b", "impressions": 10**15, "clicks": 20_000_001}, "20000001 clicks of the past; at most 20000000"),
        ({"id": "b", "impressions": 9}, "no click"),
        (b'{"id": "b", "features": {"words": ' + b"[" * 100_000, "line 2: .*recursion"),
        ({"id": "b", "click": 1}, "line 2: .*click"),
        ({"id": "b", "features": {"colour": "red"}}, r"line 2: features\.colour"),
        ({"id": "b", "features": {"words": list("abcde")}}, "line 2: .*words"),
    ],
)
def test_a_line_that_cannot_be_used_is_an_error_with_its_number(line: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(lines({"id": "a"}, line), SPEC)


def test_the_past_teaches_what_words_are_worth_and_not_what_ids_are() -> None:
    """One word is clicked by a fifth, the other by a twentieth; the ids would tell it as well."""
    past = [
        Known(id=f"{word}{n}", features={"words": [word]}, impressions=10_000, clicks=clicks)
        for word, clicks in (("x", 2_000), ("y", 500))
        for n in range(60)
    ]
    learner = learned(past, NETWORK, seed=3, learning_rate=0.02)
    clicks = sum(one.clicks for one in past)
    assert learner.step == pytest.approx(
        3 * 2 * clicks / 4_096, rel=0.05
    )  # thrice all clicks, and about as many others
    encoder = Encoder(SPEC)
    context, seen = encoder.context(), encoder.items(["new", "new", "x0"], [{"words": [one]} for one in "xyx"])
    p = learner.predict(Batch(*context, *seen))
    np.testing.assert_allclose(p, [0.2, 0.05, 0.2], rtol=0.1)
    moved = np.abs(
        learner.weights()["embedding.item_2"]
        - Learner(NETWORK, learning_rate=1.0, seed=3).weights()["embedding.item_2"]
    )
    assert set(np.flatnonzero(moved.any(axis=1))) == {0}  # of all ids the one that stands for none


def test_the_past_is_the_same_for_the_same_seed_alone() -> None:
    past = [Known(id="a", features={"words": ["x"]}, impressions=5_000, clicks=100)]
    one, same, other = (learned(past, NETWORK, seed=seed).weights() for seed in (1, 1, 2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    assert any((value != other[name]).any() for name, value in one.items())


def test_impressions_may_be_more_than_an_integer_holds() -> None:
    past = [Known(id=f"{n}", impressions=2**53, clicks=5) for n in range(1_100)]
    assert learned(past, NETWORK, seed=3).step == 9  # 5,500 clicks and as many others, thrice


def test_items_appear_with_what_is_known_of_them() -> None:
    items, encoder = Items(SPEC, {"a": {"words": ["x", "y"]}}), Encoder(SPEC)
    assert items.numbers(["b", "a"]).tolist() == [0, 1]
    for found, wanted in zip(
        (items.index, items.weight), encoder.items(["b", "a"], [None, {"words": ["x", "y"]}]), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
