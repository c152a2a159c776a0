"""The results that docs show are those that were kept, and can be had again."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from models.evaluation.worlds.world import TUNING_SEEDS
from models.registry import build
from scripts.report_summary import cells, markdown
from scripts.report_tables import TABLES

DOCS = Path(__file__).parents[2] / "docs"
REPORTS = sorted(path for path in (DOCS / "results").glob("*.json") if path.name != "tuning.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_docs_show_a_result_as_it_was_kept(path: Path) -> None:
    kept = read(path)
    table = TABLES[kept["report"]]
    assert markdown(*cells(table, kept["rows"])) in (DOCS / "experiments.md").read_text()
    program, command, name, *_ = shlex.split(kept["command"])
    assert (program, command, name) == ("agerank", "report", kept["report"])


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_result_is_of_todays_settings_on_seeds_that_nothing_was_tuned_on(path: Path) -> None:
    kept = read(path)
    assert not set(kept["seeds"]) & set(TUNING_SEEDS)
    rows = {row.label: build(row.options["method"], row.options) for row in TABLES[kept["report"]].rows}
    assert {one["label"] for one in kept["rows"]} <= set(rows)
    for one in kept["rows"]:
        strategy = rows[one["label"]]
        assert one["strategy"]["options"] == strategy.options
        assert (one["strategy"]["lambda"], one["strategy"]["budget"]) == (strategy.lambda_, strategy.budget)


def test_the_tuning_of_the_tables_is_kept_with_its_trials() -> None:
    for study in read(DOCS / "results" / "tuning.json"):
        assert "seeds 0-1" in study["study"]
        for trial in study["trials"]:
            build(trial["options"]["method"], trial["options"])
            assert trial["gain"] == pytest.approx(sum(trial["gains"]) / len(trial["gains"]))
