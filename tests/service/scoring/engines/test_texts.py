"""The compiled way with texts against the xxhash package, and masks drawn by the kernel against `models.noise`."""

import random

import numpy as np
import pytest
import xxhash

from models.columns import COLUMN, Texts
from models.features import Encoder, FeatureError
from models.noise import draw
from models.spec import FeatureSpec
from models.types import NoiseInput, Scope
from service.scoring.engines import kernel

if not kernel.LIBRARY.exists():
    pytest.skip("the kernel was not compiled: no C compiler when the project was installed", allow_module_level=True)

from service.scoring.engines.texts import CompiledTexts

SEEDS = [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0]


@pytest.fixture(scope="module")
def compiled() -> CompiledTexts:
    return CompiledTexts()


def expected(texts: list[list[str]], seeds: list[int]) -> list[list[int]]:
    return [
        [xxhash.xxh3_64_intdigest(one.encode(), seed) for one in some] for some, seed in zip(texts, seeds, strict=True)
    ]


@pytest.mark.parametrize("size", [*range(33), 64, 65, 96, 97, 127, 128, 129, 144, 159, 160, 239, 240, 241, 2_000])
def test_every_length_and_seed(compiled: CompiledTexts, size: int) -> None:
    generator = random.Random(size)
    texts = [["".join(generator.choices("abcdef0189-_", k=size)) for _ in range(4)] for _ in SEEDS]
    assert compiled.hashes(texts, np.array(SEEDS, dtype=np.uint64)).tolist() == expected(texts, SEEDS)


@pytest.mark.parametrize(
    "texts",
    [["a\0b"], ["\0"], ["a", "b\0"], ["\0a", "b"], ["a", "\0", "b"], ["", ""], ["\N{SNOWMAN}", "\U0001f600" * 60, ""]],
)
def test_texts_with_anything_in_them(compiled: CompiledTexts, texts: list[str]) -> None:
    twice = [texts, texts[::-1]]
    assert compiled.hashes(twice, np.array(SEEDS[:2], dtype=np.uint64)).tolist() == expected(twice, SEEDS[:2])


def test_no_texts(compiled: CompiledTexts) -> None:
    assert compiled.hashes([[], []], np.array(SEEDS[:2], dtype=np.uint64)).shape == (2, 0)


def test_rows_of_all_columns_at_once(compiled: CompiledTexts) -> None:
    """In slots out of order; other slots stay. Also with a text too long for the kernel, and with a NUL in one."""
    columns = np.array([(5, 97, 1, 3), (2**63, 2**31 - 1, 0, 0)], dtype=COLUMN)
    for texts in ([["a", "b"], ["", "c"]], [["a", "b"], ["\0", "c"]], [["a", "b" * 300], ["", "c"]]):
        ours, right = np.full((2, 5), -1, dtype=np.int32), np.full((2, 5), -1, dtype=np.int32)
        compiled.fill(texts, columns, ours)
        Texts().fill(texts, columns, right)
        assert np.array_equal(ours, right)
        assert (ours[:, [1, 2, 4]] == -1).all()
        assert (ours[:, [0, 3]] >= [0, 1]).all()


def test_encodes_as_ever(compiled: CompiledTexts) -> None:
    """Every kind of field, and values that are missing, numbers or refused."""
    spec = FeatureSpec.from_toml("""fields = [
      {name = "user", side = "user", kind = "categorical", source = "id", buckets = 97, width = 2},
      {name = "hour", side = "context", kind = "numeric", width = 2},
      {name = "shop", side = "item", kind = "categorical", buckets = 97, width = 2},
      {name = "topic", side = "item", kind = "categorical", buckets = 97, width = 2},
      {name = "tags", side = "item", kind = "multi_hot", buckets = 97, max_values = 3, width = 2},
    ]""")
    ids = [f"item-{one}" for one in range(4)]
    features = [{"shop": "a", "topic": 3}, {"topic": True, "tags": ["x", "y", 5]}, {}, {"shop": "b" * 300, "tags": []}]
    ours, plain = Encoder(spec, compiled), Encoder(spec)
    given = {"user_id": "u", "context": {"hour": 3}}
    for found, right in zip(ours.batch(ids, features, **given), plain.batch(ids, features, **given), strict=True):
        assert np.array_equal(found, right)
    assert np.array_equal(ours.item_hashes(ids), plain.item_hashes(ids))
    with pytest.raises(FeatureError, match=r"candidates\[1\].features.shop"):
        ours.items(ids, [{}, {"shop": [1]}, {}, {}])


@pytest.mark.parametrize("scope", ["request", "candidate", "version"])
@pytest.mark.parametrize("draws", [1, 3])
def test_draws_the_masks_of_the_model(scope: Scope, draws: int) -> None:
    masks = NoiseInput(name="masks", distribution="dropout", scope=scope, draws=draws, width=45, rate=0.3)
    item_hash = np.array([7, 2**64 - 1, 0], dtype=np.uint64)
    seed = 2**63 + 5
    drawn = kernel.dropout(masks, request_seed=seed, version=9, item_hash=item_hash)
    request_seed = np.array([seed], dtype=np.uint64)
    right = draw([masks], request_seed=request_seed, version=9, item_hash=item_hash)["masks"]
    assert np.array_equal(drawn, right)
    assert drawn.shape == right.shape
