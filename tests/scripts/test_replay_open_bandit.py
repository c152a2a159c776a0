"""`agerank replay` of logs in the layout of the Open Bandit Dataset."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from scripts.cli import app

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`agerank replay` in this process, in a folder without settings."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["replay", "--jobs", "1", *map(str, arguments)])


def campaign(folder: Path, *, rows: int = 600, header: str = "") -> Path:
    """A log of the layout of Open Bandit: item b is clicked, a and c are not."""
    folder.mkdir()
    (folder / "item_context.csv").write_text(",item_id,item_feature_0\n0,a,0.5\n1,b,0.1\n2,c,0.3\n")
    user = ",".join(f"user_feature_{number}" for number in range(4))
    lines = [header or f",timestamp,item_id,position,click,propensity_score,{user}"]
    for number in range(rows):
        item = "abc"[number * 7 % 3]
        time = f"2019-11-24 00:{number // 60:02}:{number % 60:02}.5+00:00"
        lines.append(f"{number},{time},{item},{number % 3 + 1},{int(item == 'b')},0.3333333333,u,v,w{number % 5},x")
    (folder / "log.csv").write_text("\n".join(lines))
    return folder / "log.csv"


def test_open_bandit_is_replayed(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--log", campaign(tmp_path / "all"), "--format", "open_bandit", "--strategies", "random,greedy")
    done = invoke(*arguments, "--warm-up", 300, "--update-every", 50, "--json")
    assert done.exit_code == 0, done.output
    random, greedy = json.loads(done.stdout)
    assert random["events"] == 300
    assert random["expected_random_matches"] == pytest.approx(100)
    assert greedy["ctr"] > 0.9


def test_rows_of_open_bandit_that_cannot_be_used_are_counted(invoke: Invoke, tmp_path: Path) -> None:
    path = campaign(tmp_path / "all")
    good = path.read_text().splitlines()
    changes = [
        (",0.3333333333,", ",1.0,"),
        (",0.3333333333,", ",0,"),
        (",0.3333333333,", ",often,"),
        ("2019-11-24", "someday"),
        (",1,0,", ",1,maybe,"),
        (",a,", ",z,"),
        (",u,v", ",u"),
        (",u,", ',"u,'),
    ]
    path.write_text("\n".join([*good, *(good[1].replace(*change) for change in changes)]))
    done = invoke("--log", path, "--format", "open_bandit", "--strategies", "random", "--warm-up", 100, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["events"] == 500
    assert "skipped 8 lines: 3 bad_propensity, 2 incomplete_line" in done.stderr
    for reason in ("bad_time", "bad_click", "displayed_not_in_pool"):
        assert f"1 {reason}" in done.stderr


def test_what_is_not_of_open_bandit_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    for name, message in (("header", "no column click"), ("items", "two or more distinct items"), ("none", "No such")):
        path = campaign(tmp_path / name, header="timestamp,item_id" if name == "header" else "")
        if name == "items":
            path.with_name("item_context.csv").write_text(",item_id\n0,a\n1,a\n")
        if name == "none":
            path.with_name("item_context.csv").unlink()
        done = invoke("--log", path, "--format", "open_bandit", "--strategies", "random")
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.replace("\u2502", " ").split())


def test_the_sample_of_obp_is_replayed(invoke: Invoke) -> None:
    found = find_spec("obp")  # not imported: it wants a library for every estimator
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package obp is not installed")
    log = Path(found.submodule_search_locations[0]) / "dataset/obd/random/all/all.csv"
    arguments = ("--log", log, "--format", "open_bandit", "--strategies", "random", "--warm-up", 1_000, "--json")
    (row,) = json.loads(invoke(*arguments).stdout)
    assert row["events"] == 9_000
    assert row["expected_random_matches"] == pytest.approx(9_000 / 80)
