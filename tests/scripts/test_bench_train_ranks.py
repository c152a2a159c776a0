"""Several trainers against one: they learn the same, and every row is there."""

import json

import pytest
from typer.testing import CliRunner

from scripts.cli import app


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns() -> None:
    options = ["--ranks", "2", "--batch-sizes", "256", "--requests", "200", "--runs", "1", "--json"]
    run = CliRunner().invoke(app, ["bench", "train", *options])
    assert run.exit_code == 0, run.output
    rows = json.loads(run.stdout)
    assert [(row["way"], row["ranks"]) for row in rows] == [
        ("adam", 1),
        ("adam", 2),
        ("sparse_adam", 1),
        ("sparse_adam", 2),
    ]
    for row in rows:
        assert row["examples_per_s"] > 0
        assert 0 <= row["difference"] < 1e-5
    assert [row["over_one"] for row in rows if row["ranks"] == 1] == [1.0, 1.0]
    assert all(row["difference"] > 0 for row in rows if row["ranks"] == 2)  # sums in another order: both have learned
