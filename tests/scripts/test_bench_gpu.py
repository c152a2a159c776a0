"""agerank bench gpu: without a device it says so, and on the CPU it runs the same code."""

import pytest
import torch
from typer.testing import CliRunner

from scripts.bench.gpu import METHODS, run
from scripts.cli import app

CUDA = torch.cuda.is_available()
WHERE = torch.device("cuda" if CUDA else "cpu")


@pytest.mark.skipif(CUDA, reason="a CUDA device is here")
def test_without_a_device_it_says_so() -> None:
    result = CliRunner().invoke(app, ["bench", "gpu"])
    assert result.exit_code == 2
    assert "No CUDA device" in result.stderr
    assert not result.stdout


def test_every_method_is_measured_and_equals_the_cpu() -> None:
    told: list[str] = []
    found = run(candidates=[20, 150], runs=1, calls=1, fuse=False, where=WHERE, tell=told.append)
    assert [(row["candidates"], row["method"]) for row in found] == [
        (count, name) for count in (20, 150) for name in METHODS
    ]
    for row in found:
        assert row["error"] < (1e-4 if CUDA else 1e-6)
        assert min(row["device_us"], row["request_us"], row["over_greedy"]) > 0
        assert (row["naive_us"] is None) == (row["faster_than_naive"] is None) == (row["method"] == "greedy")
    assert told
