"""The demo's arithmetic: every figure from what users saw, worked by hand."""

import time
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from models.evaluation.worlds.r6b import Visit
from scripts.demo_figures import Seen

VISIT = Visit("user-1", [1], ["a", "b", "c"], np.array([0.1, 0.2, 0.6]))


def answer(version: int = 0, p_click: float = 0.5, explored: bool = False, strategy: str = "greedy") -> dict[str, Any]:
    items = [{"id": "a", "p_click": p_click, "explored": False}, {"id": "b", "p_click": p_click, "explored": explored}]
    return {"strategy": strategy, "items": items, "model": {"version": version}}


def nothing_learned(after: int, version: int) -> list[int]:
    return []


def test_a_strategy_s_figures() -> None:
    seen = Seen(nothing_learned)
    for p_click, clicked in ((0.9, [True, False]), (0.9, [False, False]), (0.4, [True, False])):
        seen.slate(VISIT, answer(p_click=p_click, explored=True), np.array(clicked))
    assert seen.report()["strategies"] == {
        "greedy": {"impressions": 6, "clicks": 2, "ctr": 2 / 6, "pcoc": pytest.approx(0.8), "explored": 0.5}
    }, "pcoc is that of the last third: two impressions, predicted 0.4 each, one click"


def test_the_bounds_are_the_world_s() -> None:
    seen = Seen(nothing_learned)
    seen.slate(VISIT, answer(), np.array([False, False]))
    assert seen.report()["oracle_ctr"] == pytest.approx(0.4)
    assert seen.report()["random_ctr"] == pytest.approx(0.3)


def test_clicks_are_being_served_from_the_first_answer_of_a_version_that_learned_them() -> None:
    asked: list[tuple[int, int]] = []

    def learned(after: int, version: int) -> list[int]:
        asked.append((after, version))
        return [int(time.time() * 1000) - 3_000] * 2

    seen = Seen(learned)
    for version in (0, 0, 7, 7, 9, 7):
        seen.slate(VISIT, answer(version=version), np.array([False, False]))
    assert asked == [(0, 7), (7, 9)]
    report = seen.report()
    assert report["versions_swapped"] == 2
    assert report["click_to_serving_seconds"] == {"p50": pytest.approx(3, abs=0.5), "p99": pytest.approx(3, abs=0.5)}


def test_before_anything_was_seen_there_are_no_figures() -> None:
    report = Seen(nothing_learned).report()
    assert (report["requests"], report["failed"], report["versions_swapped"], report["strategies"]) == (0, 0, 0, {})
    assert np.isnan([*report["click_to_serving_seconds"].values(), report["oracle_ctr"], report["random_ctr"]]).all()


def test_the_table_and_the_line_can_be_drawn_at_any_time() -> None:
    seen = Seen(nothing_learned)
    console = Console(width=100, record=True)
    console.print(seen.table("Served"))
    seen.slate(VISIT, answer(version=3, strategy="age_ts", explored=True), np.array([True, False]))
    seen.failures["/v1/rank: 503"] += 2
    console.print(seen.table("Served"))
    text = console.export_text()
    assert "age_ts" in text
    assert "50.00%" in text
    assert "2 failed" in seen.line()
