"""KuaiRand: three parquet files become impressions with the features that the spec names."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from models.metrics import auc, log_loss
from models.spec import FeatureSpec
from scripts.cli import app
from scripts.history import LogError, Skipped
from scripts.kuairand import read_kuairand

DATA = Path(__file__).parents[3] / "shared" / "data"
SPECS = Path(__file__).parents[2] / "scripts" / "specs"
SPEC = FeatureSpec.from_toml("""
[[fields]]
name = "degree"
side = "user"
kind = "categorical"
buckets = 16

[[fields]]
name = "tab"
side = "context"
kind = "categorical"
buckets = 16

[[fields]]
name = "tag"
side = "item"
kind = "multi_hot"
buckets = 16
max_values = 4

[[fields]]
name = "kind"
side = "item"
kind = "categorical"
buckets = 16

[[fields]]
name = "seconds"
side = "item"
kind = "numeric"
""")
IMPRESSION = {"time_ms": 1, "user_id": 1, "video_id": 10, "tab": 1, "is_click": 1, "is_like": 0}


def files_of(folder: Path, *impressions: dict[str, Any]) -> list[Path]:
    tables = {
        "users": [{"user_id": 1, "degree": "full"}, {"user_id": 2, "degree": None}],
        "videos": [
            {"video_id": 10, "tag": "3,7", "kind": 4.0, "seconds": 12.5},
            {"video_id": 11, "tag": None, "kind": float("nan"), "seconds": None},
        ],
        "impressions": list(impressions),
    }
    paths = []
    for name, rows in tables.items():
        paths.append(folder / f"{name}.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), paths[-1])
    return paths


def test_the_three_files_are_joined_in_any_order(tmp_path: Path) -> None:
    second = IMPRESSION | {"time_ms": 2, "user_id": 2, "video_id": 11, "is_click": 0}
    for paths in (files_of(tmp_path, IMPRESSION, second), files_of(tmp_path, IMPRESSION, second)[::-1]):
        first, last = read_kuairand(paths, SPEC, Skipped())
        assert (first.user, first.context) == ({"degree": "full"}, {"tab": 1})
        assert first.item == {"tag": ["3", "7"], "kind": 4, "seconds": 12.5}
        assert (first.user_id, first.item_id, first.click, last.click) == ("1", "10", True, False)
        assert (last.user, last.item) == ({}, {}), "null and NaN are missing"


def test_only_exact_repetitions_are_dropped(tmp_path: Path) -> None:
    other = IMPRESSION | {"is_like": 1}
    later = IMPRESSION | {"time_ms": 2}
    skipped = Skipped()
    rows = list(read_kuairand(files_of(tmp_path, IMPRESSION, other, IMPRESSION, later), SPEC, skipped))
    assert [row.time_ms for row in rows] == [1, 1, 2]
    assert skipped.counts == {"duplicate": 1}
    assert skipped.first == {"duplicate": "impressions.parquet:3"}


def test_a_row_without_a_label_is_counted(tmp_path: Path) -> None:
    skipped = Skipped()
    rows = list(read_kuairand(files_of(tmp_path, IMPRESSION, IMPRESSION | {"is_click": None}), SPEC, skipped))
    assert len(rows) == 1
    assert skipped.counts == {"bad_click": 1}


def test_an_id_without_features_has_none(tmp_path: Path) -> None:
    (row,) = read_kuairand(files_of(tmp_path, IMPRESSION | {"user_id": 3, "video_id": 12}), SPEC, Skipped())
    assert (row.user_id, row.item_id, row.user, row.item) == ("3", "12", {}, {})


def test_what_is_only_known_afterwards_is_no_feature(tmp_path: Path) -> None:
    toml = '[[fields]]\nname = "is_like"\nside = "context"\nkind = "categorical"\nbuckets = 4\n'
    spec = FeatureSpec.from_toml(toml + toml.replace("is_like", "kind").replace("context", "item"))
    with pytest.raises(LogError, match="context fields can be tab, user_tab, user_history, not is_like"):
        list(read_kuairand(files_of(tmp_path, IMPRESSION), spec, Skipped()))


def test_history_is_what_a_service_would_know(tmp_path: Path) -> None:
    """Of the user's own impressions those of more than ten minutes before, and no outcome that came since."""
    toml = '[[fields]]\nname = "{}"\nside = "context"\nkind = "categorical"\nbuckets = 64\n'
    kind = toml.format("kind").replace("context", "item")
    spec = FeatureSpec.from_toml(kind + "".join(map(toml.format, ["user_tab", "user_history"])))
    times = [3_600_000, 3_600_001, 4_200_000, 4_200_001, 4_200_002, 4_800_003, 90_000_000]
    rows = [IMPRESSION | {"time_ms": time_ms, "is_click": number % 2} for number, time_ms in enumerate(times)]
    other = IMPRESSION | {"time_ms": 4_800_003, "user_id": 2, "tab": 0}
    found = list(read_kuairand(files_of(tmp_path, *rows[:6], other, rows[6]), spec, Skipped()))
    assert [one.context["user_history"] for one in found] == [
        "0-0",
        "0-0",
        "0-0",  # the first is ten minutes ago, and not more
        "0-1",
        "1-2",
        "2-5",
        "0-0",
        "3-6",
    ]
    assert {one.context["user_tab"] for one in found} == {"1-1", "2-0"}


def test_files_that_are_not_these_three_are_refused(tmp_path: Path) -> None:
    impressions, users, videos = reversed(files_of(tmp_path, IMPRESSION))
    with pytest.raises(LogError, match="wants three files"):
        list(read_kuairand([impressions, users], SPEC, Skipped()))
    with pytest.raises(LogError, match="wants three files"):
        list(read_kuairand([impressions, users, users], SPEC, Skipped()))
    text = tmp_path / "notes.txt"
    text.write_text("not parquet")
    with pytest.raises(LogError, match=r"notes\.txt"):
        list(read_kuairand([impressions, videos, text], SPEC, Skipped()))
    toml = '[[fields]]\nname = "colour"\nside = "item"\nkind = "categorical"\nbuckets = 4\n'
    with pytest.raises(LogError, match=r"videos\.parquet: no column colour"):
        list(read_kuairand([impressions, users, videos], FeatureSpec.from_toml(toml), Skipped()))


@pytest.mark.skipif(not DATA.is_dir(), reason="the data lies beside the checkout, where it does")
def test_the_spec_fits_the_real_files() -> None:
    spec = FeatureSpec.from_toml((SPECS / "kuairand.toml").read_text())
    skipped = Skipped()
    rows = read_kuairand(sorted(DATA.glob("kuairand_*.parquet")), spec, skipped)
    first = next(rows)
    assert first.time_ms == 1650812741436
    assert len(first.user) == 25
    assert first.context == {"tab": 1, "user_tab": "712-1", "user_history": "0-0"}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the data lies beside the checkout, where it does")
def test_the_model_beats_the_odds_of_items_and_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log takes minutes (docs/ingest.md); its first day and a half tell as much."""
    table = parquet.read_table(DATA / "kuairand_impressions.parquet").slice(0, 24_000)
    parquet.write_table(table, tmp_path / "impressions.parquet")
    files = [tmp_path / "impressions.parquet", *(DATA / f"kuairand_{name}.parquet" for name in ("users", "videos"))]
    settings = {
        "DATA_DIR": str(tmp_path / "data"),
        "HIDDEN": "[64, 32, 16]",
        "OPTIMIZER": "rowwise_adagrad",
        "LEARNING_RATE": "0.001",
        "TABLE_LEARNING_RATE": "0.15",
        "DROPOUT": "0",
        "INITIAL_CTR": "0.4",
        "STRATEGIES": '{"greedy": {"method": "greedy"}}',
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AGERANK_{name}", value)
    options = [
        "--format",
        "kuairand",
        "--spec",
        str(SPECS / "kuairand.toml"),
        "--evaluate-from",
        "2022-04-26",
        "--json",
    ]
    result = CliRunner().invoke(app, ["ingest", *options, *map(str, files)])
    assert result.exit_code == 0, result.stderr
    report = {row["window"]: row for row in json.loads(result.stdout)}
    distinct = list(dict.fromkeys(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)))
    place = [table.column_names.index(name) for name in ("time_ms", "user_id", "video_id", "is_click")]
    p, label = odds([tuple(row[one] for one in place) for row in distinct], since_ms=1_650_931_200_000)
    model = report["from 2022-04-26"]
    assert len(p) - 500 < model["examples"] < len(p), "all but what still waits for its window or a full batch"
    assert model["auc"] > auc(p, label) + 0.015
    assert model["log_loss"] < log_loss(p, label)
    assert 0.95 < model["pcoc"] < 1.05


def odds(impressions: list[tuple[int, int, int, int]], *, since_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Running log odds of item and user, each smoothed by 5 impressions at the running CTR, added up."""
    counts = {
        "item": defaultdict(lambda: [0, 0]),
        "user": defaultdict(lambda: [0, 0]),
        "all": defaultdict(lambda: [1, 2]),
    }
    p, label = [], []
    for time_ms, user, item, click in impressions:
        seen = counts["item"][item], counts["user"][user], counts["all"][0]
        mean = seen[2][0] / seen[2][1]
        item_odds, user_odds = ((clicks + 5 * mean) / (shown - clicks + 5 * (1 - mean)) for clicks, shown in seen[:2])
        ratio = item_odds * user_odds * (1 - mean) / mean
        if time_ms >= since_ms:
            p.append(ratio / (1 + ratio))
            label.append(click)
        for one in seen:
            one[0] += click
            one[1] += 1
    return np.array(p), np.array(label)
