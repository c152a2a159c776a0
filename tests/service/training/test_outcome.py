"""Sums of what closed, against one row at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training import outcome
from service.training.memory import UNCLICKED, Closed, Order
from service.training.outcome import OTHER, Outcome, Predictions, Progress, Slice, slices

MATURE = 10
row = st.tuples(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0, 9, 10, 2**64 - 1]),
    st.sampled_from([UNCLICKED, 5]),
    st.booleans(),
)


@given(
    st.lists(st.tuples(st.sampled_from(["greedy", "age_ts", "x"]), st.lists(row, min_size=1, max_size=4)), max_size=6)
)
def test_sums_are_those_of_the_rows(world, requests) -> None:
    closed, expected = [], {}
    for number, (strategy, shown) in enumerate(requests):
        p_click, score, impressions, clicks, counted = (list(column) for column in zip(*shown, strict=True))
        served = world.served(
            f"r{number}",
            tuple("abcd"[: len(shown)]),
            strategy=strategy,
            p_click=p_click,
            score=score,
            impressions=impressions,
        )
        rows = [place for place, one in enumerate(counted) if one]
        if rows:
            closed.append(Closed(served, rows, [clicks[place] for place in rows], Order(1, 1, 0, "")))
        for place in rows:
            name = strategy if strategy != "x" else OTHER
            sums = expected.setdefault((name, "new" if impressions[place] < MATURE else "mature"), Slice())
            sums.impressions += 1
            sums.clicks += clicks[place] == 5
            sums.predicted_clicks += p_click[place]
            sums.score += score[place]
    found = slices(closed, {"greedy", "age_ts"}, mature=MATURE)
    assert found.keys() == expected.keys()
    for key, sums in expected.items():
        assert vars(found[key]) == pytest.approx(vars(sums))


def test_while_no_version_can_be_written_click_times_stay_few_and_evenly_spread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcome, "CLICK_TIMES", 10)
    progress, number = Progress(), 0
    for clicks in (3, 0, 1, 9, 2, 50, 1, 1, 4):
        times_ms = list(range(number, number + clicks))
        column = np.ones(clicks, dtype=np.float32)
        predictions = [Predictions(np.array(times_ms), column / 2, column, column)] if clicks else []
        progress.add(Outcome(predictions=predictions, click_times_ms=times_ms))
        number += clicks
        assert progress.click_times_ms == list(range(0, number, progress.every))
        assert len(progress.click_times_ms) <= 10
    assert (progress.clicks, progress.every) == (71.0, 8)
