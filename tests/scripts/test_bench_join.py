"""The benchmark of the join: as many impressions as it says, and a state that is that of a trainer."""

import json

import pytest
from typer.testing import CliRunner

from scripts.bench.join import _fill, _join, _served
from scripts.cli import app


def test_every_impression_waits_and_some_are_clicked() -> None:
    one = _join(100)
    _fill(one, [_served(number, 10) for number in range(100)], 100)
    assert one.pending == 100
    counts = one.take(0).counts
    assert set(counts) == {"matched"}
    assert 0 < counts["matched"] < 20


def test_it_prints_a_row_for_each_slate() -> None:
    result = CliRunner().invoke(app, ["bench", "join", "--pending", "200", "--slates", "1,20", "--runs", "1", "--json"])
    assert result.exit_code == 0, result.output
    one, twenty = json.loads(result.stdout)
    assert (one["slate"], twenty["slate"]) == (1, 20)
    assert one["pending"] == twenty["pending"] == 200
    assert one["bytes_each"] > twenty["bytes_each"] > twenty["record_bytes_each"] > 96  # 12 indices and weights
    assert one["mib"] * 2**20 == pytest.approx(200 * one["bytes_each"])
