"""Columns of examples against rows taken one by one."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.examples import Examples, concatenate, examples
from service.training.memory import UNCLICKED, Closed, Order

ITEMS = "abcde"
Row = tuple[int, int, bytes, bytes, int, bytes, bytes]


def reference(closed: Sequence[Closed]) -> list[Row]:
    """(served, time, context index and weight, click, item index and weight) of every row."""
    rows = []
    for one in closed:
        (context_index, context_weight), (item_index, item_weight) = one.served.context(), one.served.items()
        for row, click_ms in zip(one.rows, one.click_ms, strict=True):
            context = context_index[0].tobytes(), context_weight[0].tobytes()
            item = item_index[row].tobytes(), item_weight[row].tobytes()
            rows.append((one.served.time_ms, one.time_ms, *context, click_ms, *item))
    return rows


def rows_of(found: Examples) -> list[Row]:
    """The same of columns."""
    return [
        (
            int(found.served_ms[window]),
            int(found.time_ms[window]),
            found.context_index[window].tobytes(),
            found.context_weight[window].tobytes(),
            int(found.click_ms[row]),
            found.item_index[row].tobytes(),
            found.item_weight[row].tobytes(),
        )
        for row, window in enumerate(found.window.tolist())
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, list[int], list[int]]]:
    """(time, rows, clicks) of what closed."""
    times = draw(st.lists(st.integers(1, 10**13), max_size=6))
    all_rows = [draw(st.lists(st.sampled_from(range(len(ITEMS))), min_size=1, unique=True).map(sorted)) for _ in times]
    clicks = [
        draw(st.lists(st.sampled_from([UNCLICKED, 0, 7]), min_size=len(one), max_size=len(one))) for one in all_rows
    ]
    return list(zip(times, all_rows, clicks, strict=True))


def closed_of(world, history: list[tuple[int, list[int], list[int]]]) -> list[Closed]:
    return [
        Closed(served, rows, clicks, Order(0, time_ms, 0, ""))
        for number, (time_ms, rows, clicks) in enumerate(history)
        for served in [world.served(f"r{time_ms}", tuple(ITEMS), number % 8, time_ms=number)]
    ]


@given(histories())
def test_every_row_is_there_in_order(world, history) -> None:
    closed = closed_of(world, history)
    found = examples(closed, world.spec)
    assert rows_of(found) == reference(closed)
    assert found.rows == len(reference(closed))
    assert found.label.tolist() == [float(row[4] != UNCLICKED) for row in reference(closed)]


@given(histories(), st.data())
def test_what_is_cut_and_put_together_again_is_the_same(world, history, data: st.DataObject) -> None:
    closed = closed_of(world, history)
    at = data.draw(st.integers(0, len(closed)))
    whole = concatenate(examples(closed[:at], world.spec), examples(closed[at:], world.spec))
    assert rows_of(whole) == reference(closed)
    if whole.rows:
        cut = data.draw(st.integers(1, whole.rows))
        head, rest = whole.split(cut)
        assert (rows_of(head), rows_of(rest)) == (reference(closed)[:cut], reference(closed)[cut:])
        for part in (head, rest):  # no context that nobody needs: the state of a trainer depends on its rows alone
            assert set(part.window.tolist()) == set(range(len(part.time_ms)))


def test_torch_may_have_the_columns(world) -> None:
    found = examples(closed_of(world, [(1, [0, 2], [UNCLICKED, 5])]), world.spec)
    assert all(column.flags.writeable and column.flags.c_contiguous for column in found)
    assert (found.item_index.dtype, found.item_weight.dtype) == (np.int32, np.float32)
