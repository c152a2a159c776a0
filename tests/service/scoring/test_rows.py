"""A table of rows is a dictionary, however its hashes fall."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from models.types import Array
from service.scoring.rows import WIDTH, RowTable


def hashes(*values: int) -> Array:
    return np.array(values, dtype=np.uint64)


def test_many_hashes_are_found_and_others_are_not() -> None:
    generator = np.random.default_rng(0)
    ours, others = np.split(np.unique(generator.integers(1, 2**63, 20_000).astype(np.uint64)), [15_000])
    table, rows = RowTable(15_000), np.arange(1, 15_001)
    for chunk in range(0, 15_000, 1_000):
        table.add(ours[chunk : chunk + 1_000], rows[chunk : chunk + 1_000])
    np.testing.assert_array_equal(table.find(ours), rows)
    assert not table.find(others).any()
    table.remove(ours[::2])
    np.testing.assert_array_equal(table.find(ours), np.where(np.arange(15_000) % 2, rows, 0))


def test_more_hashes_than_a_bucket_holds() -> None:
    """All of one bucket, twice as many as it holds and far more than the table was made for."""
    table, ours = RowTable(1), hashes(*range(1, 2 * WIDTH + 1))
    table.add(ours, np.arange(1, 2 * WIDTH + 1))
    np.testing.assert_array_equal(table.find(ours), np.arange(1, 2 * WIDTH + 1))
    assert not table.find(hashes(99)).any()


def told(table: RowTable) -> dict[int, int]:
    pairs = [pair for some, rows in table.blocks() for pair in zip(some.tolist(), rows.tolist(), strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


numbers = st.sets(st.one_of(st.integers(1, 30), st.integers(1, 2**64 - 1)), max_size=30)


@given(st.lists(st.tuples(st.booleans(), numbers), max_size=10))
def test_it_is_a_dictionary(steps: list[tuple[bool, set[int]]]) -> None:
    table, plain, row = RowTable(20), dict[int, int](), 0
    for adds, chosen in steps:
        if adds:
            new = sorted(chosen - plain.keys())
            table.add(hashes(*new), np.arange(row + 1, row + 1 + len(new)))
            plain |= dict(zip(new, range(row + 1, row + 1 + len(new)), strict=True))
            row += len(new)
        else:
            table.remove(hashes(*chosen))
            plain = {one: at for one, at in plain.items() if one not in chosen}
        assert told(table) == plain
        some = sorted(chosen | plain.keys())
        assert table.find(hashes(*some)).tolist() == [plain.get(one, 0) for one in some]
