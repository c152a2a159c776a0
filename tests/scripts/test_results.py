"""The results that docs show are those that were kept, and can be had again."""

import json
import shlex
from pathlib import Path

import pytest

from models.evaluation.worlds.world import TUNING_SEEDS
from models.registry import build
from scripts.report_tables import TABLES
from scripts.results import BRIEF, RESULTS, Document, reports, tables

ROOT = Path(__file__).parents[2]
REPORTS = reports()
SHOWN = list(tables(REPORTS))
reported = pytest.mark.parametrize("kept", REPORTS.values(), ids=REPORTS)


@pytest.mark.parametrize(("name", "path", "table"), SHOWN, ids=[name for name, _, _ in SHOWN])
def test_docs_show_a_result_as_it_was_kept(name: str, path: str, table: str) -> None:
    assert table in (ROOT / path).read_text(), f"python -m scripts.results prints what belongs into {path}"


def test_every_label_of_the_readme_is_one_of_its_table() -> None:
    assert set(BRIEF) <= {row["label"] for row in REPORTS["table1"]["rows"]}


@reported
def test_a_result_tells_its_command(kept: Document) -> None:
    program, command, name, *_ = shlex.split(kept["command"])
    assert (program, command, name) == ("agerank", "report", kept["report"])


@reported
def test_a_result_is_of_todays_settings_on_seeds_that_nothing_was_tuned_on(kept: Document) -> None:
    assert not set(kept["seeds"]) & set(TUNING_SEEDS)
    rows = {row.label: build(row.options["method"], row.options) for row in TABLES[kept["report"]].rows}
    assert {one["label"] for one in kept["rows"]} <= set(rows)
    for one in kept["rows"]:
        strategy = rows[one["label"]]
        assert one["strategy"]["options"] == strategy.options
        assert (one["strategy"]["lambda"], one["strategy"]["budget"]) == (strategy.lambda_, strategy.budget)


def test_the_tuning_of_the_tables_is_kept_with_its_trials() -> None:
    for study in json.loads((RESULTS / "tuning.json").read_text()):
        assert "seeds 0-1" in study["study"]
        for trial in study["trials"]:
            build(trial["options"]["method"], trial["options"])
            assert trial["gain"] == pytest.approx(sum(trial["gains"]) / len(trial["gains"]))
