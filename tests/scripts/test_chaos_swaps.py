"""A short form of `agerank chaos swaps` on a real scorer, and that it would see a torn answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.bench.exact import STRATEGY, Exact
from scripts.bench.work import SMALL, Catalogue, Model, publishing
from scripts.chaos.swaps import NETWORK, holds
from scripts.cli import app
from service.checkpoints import LocalStore


def test_versions_that_change_under_load_fail_nothing_and_tear_nothing() -> None:
    run = CliRunner().invoke(app, ["chaos", "swaps", "--swaps", "8", "--connections", "2", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert (found["swaps"], found["failed"], found["torn"], found["failures"]) == (8, 0, 0, {})
    assert 2 < found["versions"] <= 9
    assert found["answers"] > 8


def test_an_answer_of_two_versions_is_torn(tmp_path: Path) -> None:
    body = Catalogue().body(1, 5, strategy=STRATEGY)
    with publishing(tmp_path, Model(spec=SMALL, config=NETWORK)) as versions:
        manifests = [versions.publish(), versions.publish_next(np.random.default_rng(0))]
    exact = Exact(LocalStore(tmp_path), manifests, [body], "onnx")
    (one, ours), (_, theirs) = exact._scores.items()

    def answer(ids: list[str], scores: list[float], version: int) -> bytes:
        model = {"name": "default", "version": version, "data_timestamp": "2026-05-01T00:00:00Z"}
        items: list[dict[str, Any]] = [
            {"id": item, "rank": place, "score": score, "p_click": score, "explored": False}
            for place, (item, score) in enumerate(zip(ids, scores, strict=True), 1)
        ]
        told = {"request_id": one[1], "model": model, "strategy": STRATEGY, "items": items, "took_ms": 1.0}
        return json.dumps(told).encode()

    scores = ours.scores.tolist()
    assert exact.inconsistent([answer(ours.ids, scores, one[0])]) == 0
    torn = [
        answer(ours.ids, scores, one[0] + 1),  # the other version's name
        answer(ours.ids, [*scores[:-1], theirs.scores.tolist()[-1]], one[0]),
        answer(ours.ids[::-1], scores, one[0]),
        answer(ours.ids[:-1], scores[:-1], one[0]),
        answer(ours.ids, scores, 77),  # a version that nobody wrote
    ]
    assert exact.inconsistent(torn) == len(torn)


@pytest.mark.parametrize(
    ("failed", "torn", "versions", "expected"), [(0, 0, 5, True), (1, 0, 5, False), (0, 1, 5, False), (0, 0, 1, False)]
)
def test_a_failure_a_torn_answer_and_no_swap_break_the_promise(
    failed: int, torn: int, versions: int, expected: bool
) -> None:
    assert holds({"failed": failed, "torn": torn, "versions": versions}) is expected
