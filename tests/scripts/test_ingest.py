"""`agerank ingest` as it is run: a real log server, the real trainer, files in and a version out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from typer.testing import CliRunner, Result

from scripts.cli import app
from service import checkpoints
from service.checkpoints import LocalStore, Manifest
from service.streams import StreamNames

SPEC = """
[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 64
width = 4

[[fields]]
name = "hour"
side = "context"
kind = "numeric"
width = 2
"""
START_MS = 1_651_363_200_000  # 2022-05-01T00:00Z
STEP_MS = 60_000


@pytest.fixture
def folder(tmp_path: Path, redis_url: str, names: StreamNames, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data_dir, a spec, and settings that train a small network at once."""
    (tmp_path / "features.toml").write_text(SPEC)
    settings = {
        "REDIS_URL": redis_url,
        "REDIS_PREFIX": names.models.removesuffix(":models"),
        "PARTITIONS": "2",
        "DATA_DIR": str(tmp_path / "data"),
        "FEATURES": str(tmp_path / "features.toml"),
        "HIDDEN": "[8, 4, 4]",
        "BATCH_SIZE": "32",
        "LEARNING_RATE": "0.05",
        "INITIAL_CTR": "0.3",
        "STRATEGIES": '{"greedy": {"method": "greedy"}}',
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AGERANK_{name}", value)
    return tmp_path


def log(folder: Path, rows: int, *, start: int = 0, name: str = "log.csv") -> Path:
    """Item "good" is clicked in half of its impressions, "bad" in a tenth."""
    generator = np.random.default_rng(0)
    path = folder / name
    with path.open("w") as file:
        file.write("time,user_id,item_id,click,hour\n")
        for row in range(start, start + rows):
            item, ctr = ("good", 0.5) if row % 2 else ("bad", 0.1)
            file.write(f"{START_MS + row * STEP_MS},user,{item},{int(generator.random() < ctr)},{row % 24}\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ingest", *map(str, arguments)])


def rows_of(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {row["window"]: row for row in json.loads(result.stdout.splitlines()[-1])}


def trained(folder: Path, data: str = "data") -> tuple[Manifest, dict[str, np.ndarray]]:
    """The version that serves, and its weights."""
    store = LocalStore(folder / data / "checkpoints" / "default")
    manifest = checkpoints.load_manifest(store, checkpoints.current(store) or 0)
    return manifest, checkpoints.load_weights(store, manifest)


def test_a_log_becomes_a_version_and_a_report(folder: Path) -> None:
    rows = rows_of(run("--format", "csv", log(folder, 3000), "--json"))
    assert list(rows) == ["all", "2022-05-01", "2022-05-02", "2022-05-03"]
    assert rows["all"]["examples"] == sum(row["examples"] for name, row in rows.items() if name != "all")
    assert 3000 - 32 - 10 <= rows["all"]["examples"] <= 3000, "but for a half batch and the last ten minutes"
    assert rows["2022-05-03"]["auc"] > 0.65
    assert 0.8 < rows["all"]["pcoc"] < 1.25
    manifest, weights = trained(folder)
    assert manifest.version == rows["all"]["examples"] // 32
    assert manifest.data_timestamp_ms >= START_MS + (3000 - 60) * STEP_MS
    counts = weights[checkpoints.ITEM_IMPRESSIONS]
    assert 2900 < counts.sum() <= 3000
    assert len(counts) == 2


def test_a_window_leaves_out_what_is_older(folder: Path) -> None:
    result = run("--format", "csv", log(folder, 2000), "--json", "--since", "2022-05-02", "--timezone", "Europe/Prague")
    assert list(rows_of(result)) == ["all", "2022-05-02"]
    assert f"skipped {22 * 60:,} before_since, the first at log.csv:2" in result.stderr
    assert trained(folder)[1][checkpoints.ITEM_IMPRESSIONS].sum() <= 2000 - 22 * 60


def test_the_trainer_continues_where_ingest_stopped(folder: Path) -> None:
    first = rows_of(run("--format", "csv", log(folder, 640), "--json"))
    second = rows_of(run("--format", "csv", log(folder, 640, start=640), "--json"))
    assert first["all"]["examples"] + second["all"]["examples"] >= 1280 - 32 - 10
    store = LocalStore(folder / "data" / "checkpoints" / "default")
    before = checkpoints.versions(store)
    done = CliRunner().invoke(app, ["train", "--burst", "--json"], env={"AGERANK_TRAINER_PORT": "0"})
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])[0]["examples"] == 0, "nothing is left and nothing learned twice"
    assert checkpoints.versions(store) == before


def test_in_pieces_it_learns_the_same_and_the_streams_stay_bounded(
    folder: Path, client: redis.Redis, names: StreamNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(run("--format", "csv", log(folder, 1200), "--json"))
    _, weights = trained(folder)
    client.delete(*names.inputs)
    monkeypatch.setenv("AGERANK_DATA_DIR", str(folder / "again"))
    monkeypatch.setenv("AGERANK_STREAM_MAX_ENTRIES", "200")
    assert rows_of(run("--format", "csv", folder / "log.csv", "--json")) == whole
    _, again = trained(folder, "again")
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    assert all(client.xlen(stream) < 400 for stream in names.inputs), "redis trims in steps of about a hundred"


def test_several_files_are_merged_by_time(folder: Path) -> None:
    one = rows_of(run("--format", "csv", log(folder, 960, start=960, name="b.csv"), log(folder, 960), "--json"))
    assert one["all"]["examples"] >= 1920 - 32 - 10


def test_bad_lines_are_counted_and_named(folder: Path) -> None:
    path = log(folder, 64)
    lines = path.read_text().splitlines()
    lines[10] += ",more"
    lines[20] = lines[20].replace("good", "g" * 300)
    lines[30] = f"{START_MS},user,bad,0,1"
    lines[40] = f"{START_MS * 2},user,bad,0,1"
    lines[50] = lines[50].rsplit(",", 1)[0] + ",inf"
    path.write_text("\n".join(lines))
    result = run("--format", "csv", path)
    assert result.exit_code == 0
    for text in (
        "skipped 1 bad_line, the first at log.csv:11: 6 cells, the header has 5",
        "skipped 1 bad_item_id, the first at log.csv:21",
        "skipped 1 time_goes_back, the first at log.csv:31",
        "skipped 1 in_the_future, the first at log.csv:41",
        "skipped 1 feature_not_finite, the first at log.csv:51",
        "59 impressions written",
    ):
        assert text in result.stderr


def test_a_table_is_for_people(folder: Path) -> None:
    result = run("--format", "csv", log(folder, 640))
    assert "2022-05-01" in result.stdout
    assert "log loss" in result.stdout


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(
    folder: Path, client: redis.Redis, names: StreamNames
) -> None:
    good, bad = log(folder, 100), folder / "bad.csv"
    bad.write_text("time,user_id,item_id,click,hour,city\n")
    result = run("--format", "csv", good, bad)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "bad.csv: not in the feature spec: city" in result.stderr
    assert not client.exists(*names.inputs)


def test_streams_with_newer_entries_are_left_alone(folder: Path, client: redis.Redis, names: StreamNames) -> None:
    client.xadd(names.inputs[0], {b"e": b"x"})
    result = run("--format", "csv", log(folder, 100))
    assert result.exit_code == 1
    assert "log.csv:2 is of 2022-05-01" in result.stderr
    assert "another redis_prefix" in result.stderr
    assert sum(client.xlen(stream) for stream in names.inputs if client.exists(stream)) == 1


def test_a_running_trainer_is_not_disturbed(folder: Path, client: redis.Redis, names: StreamNames) -> None:
    with LocalStore(folder / "data" / "checkpoints" / "default").lock():
        result = run("--format", "csv", log(folder, 100))
    assert result.exit_code == 1
    assert "another trainer writes" in result.stderr
    assert not client.exists(*names.inputs)


def test_a_folder_trained_with_another_spec_is_left_alone(
    folder: Path, client: redis.Redis, names: StreamNames
) -> None:
    assert run("--format", "csv", log(folder, 640)).exit_code == 0
    client.delete(*names.inputs)
    other = folder / "other.toml"
    other.write_text(SPEC.replace("64", "65"))
    result = run("--format", "csv", folder / "log.csv", "--spec", other)
    assert result.exit_code == 1
    assert "spec_mismatch" in result.stderr
    assert not client.exists(*names.inputs)


def test_a_server_that_is_down_is_said_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGERANK_REDIS_URL", "redis://127.0.0.1:1")
    result = run("--format", "csv", log(folder, 100))
    assert result.exit_code == 1
    assert "ingest cannot go on" in result.stderr
    assert "127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--format", "csv"], "Missing argument 'files'"),
        (["--format", "csv", "absent.csv"], "does not exist"),
        (["--format", "xml", __file__], "'xml' is not one of"),
        (["--format", "csv", __file__, "--timezone", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
        (["--format", "csv", __file__, "--spec", __file__], "not TOML"),
        (["--format", "csv", __file__, "--evaluate-from", "May"], "does not match the format"),
    ],
)
def test_wrong_arguments_are_explained(folder: Path, arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert text in " ".join(result.stderr.replace("│", " ").split())


def test_a_log_of_nothing_but_bad_lines_fails(folder: Path) -> None:
    path = folder / "log.csv"
    path.write_text("time,user_id,item_id,click,hour\nnoon,user,item,1,12\n")
    result = run("--format", "csv", path)
    assert result.exit_code == 1
    assert "skipped 1 bad_time" in result.stderr


def test_by_default_it_brings_its_own_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is gone when it ends."""
    monkeypatch.delenv("AGERANK_REDIS_URL")
    path = folder / "log.jsonl"
    lines = [{"time": START_MS + row, "user_id": 1, "item_id": row % 2, "click": row % 2} for row in range(100)]
    path.write_text("\n".join(map(json.dumps, [*lines, {**lines[-1], "time": START_MS + 10**9}])))
    assert rows_of(run("--format", "jsonl", path, "--json"))["all"]["examples"] == 96
    port = int((folder / "data" / "redis" / "port").read_text())
    with redis.Redis(port=port) as gone, pytest.raises(redis.ConnectionError):
        gone.ping()
