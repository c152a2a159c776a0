"""Counts of items against a dictionary of them."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.impressions import Impressions

hashes = st.sampled_from([0, 1, 2, 5, 2**63, 2**64 - 1])


@given(st.lists(st.lists(hashes, max_size=8), max_size=8), st.integers(0, 20), st.integers(0, 8))
def test_they_are_what_was_added(added: list[list[int]], longest_tail: int, restored_at: int) -> None:
    counts = Impressions(longest_tail=longest_tail)
    for number, batch in enumerate(added):
        if number == restored_at:
            state, counts = counts.state(), Impressions(longest_tail=longest_tail)
            counts.restore(*state)
        counts.add(np.array(batch, dtype=np.uint64))
    item_hash, count = counts.state()
    assert (item_hash.dtype, count.dtype) == (np.uint64, np.int64)
    assert item_hash.tolist() == sorted({one for batch in added for one in batch})
    assert dict(zip(item_hash.tolist(), count.tolist(), strict=True)) == Counter(
        one for batch in added for one in batch
    )


def test_the_state_is_a_copy() -> None:
    counts = Impressions()
    counts.add(np.array([3, 3, 4], dtype=np.uint64))
    item_hash, count = counts.state()
    counts.add(np.array([3], dtype=np.uint64))
    assert (count.tolist(), counts.state()[1].tolist()) == ([2, 1], [3, 1])
    restored = Impressions()
    restored.restore(item_hash, count)
    restored.add(item_hash)
    assert (restored.state()[1].tolist(), count.tolist()) == ([3, 2], [2, 1])


@given(st.lists(st.lists(hashes, max_size=8), max_size=6), st.integers(0, 6), st.integers(0, 20))
def test_what_changed_is_told_until_it_is_settled(added: list[list[int]], settled_at: int, longest_tail: int) -> None:
    counts = Impressions(longest_tail=longest_tail)
    for number, batch in enumerate(added):
        if number == settled_at:
            counts.settle()
        counts.add(np.array(batch, dtype=np.uint64))
    changed, count = counts.changed()
    since = added[settled_at:] if settled_at < len(added) else added
    assert changed.tolist() == sorted({one for batch in since for one in batch})
    assert (
        dict(zip(*map(np.ndarray.tolist, (changed, count)), strict=True)).items()
        <= dict(zip(*map(np.ndarray.tolist, counts.state()), strict=True)).items()
    )
    restored = Impressions()
    restored.restore(*counts.state())
    assert not len(restored.changed()[0])
