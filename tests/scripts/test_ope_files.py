"""`agerank ope` on files: what it refuses, and what so few lines do not tell."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from scripts.cli import app
from scripts.served_log import Line


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def told(done: Result) -> str:
    """What it says of a wrong option, without the box around it."""
    return " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_log_that_says_nothing_is_refused_with_a_clear_word(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(msgspec.json.encode(Line(reward=1.0, propensity=1.0, target=1.0)) + b"\n")
    done = invoke("ope", "--log", path)
    assert done.exit_code == 1
    assert "deterministic" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reward": 1, "propensity": 0, "target": 1}', "propensity"),
        ('{"reward": 1, "propensity": 1.2, "target": 1}', "propensity"),
        ('{"reward": 1, "propensity": 0.5, "target": -1}', "target"),
        ('{"reward": 1, "propensity": 0.5}', "target"),
        ('{"reward": 1, "propensity": 0.5, "target": 1, "tagret": 1}', "tagret"),
        ('{"reward": 1, "propens', "JSON is malformed"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"reward": 1, "propensity": 0.5, "target": 1}\n\n' + line + "\n")
    done = invoke("ope", "--log", path)
    assert done.exit_code == 2
    error = told(done)
    assert "log.jsonl:3:" in error
    assert message in error


def test_one_impression_tells_no_interval(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(msgspec.json.encode(Line(reward=1.0, propensity=0.5, target=0.0)) + b"\n")
    found = invoke("ope", "--log", path).stdout
    assert "nan" not in found
    assert "too few" in found


def test_few_clicks_have_no_interval_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    shown = [{"reward": 0.0, "propensity": 0.1, "target": float(number < 30)} for number in range(300)]
    path.write_text("\n".join(map(json.dumps, shown)))
    found = json.loads(invoke("ope", "--log", path, "--json").stdout)
    assert found["estimates"]["SNIPS"] == {"value": 0.0, "low": None, "high": None}
    (warning,) = found["warnings"]
    assert warning.startswith("too few for an interval: 0.0 clicks")
    assert "too few for an interval" in invoke("ope", "--log", path).stdout


@pytest.mark.parametrize(("target", "warned"), [(1.0, True), (0.5, False)])
def test_weights_that_are_all_alike_are_held_to_a_mean_of_one(tmp_path: Path, target: float, warned: bool) -> None:
    path = tmp_path / "log.jsonl"
    shown = [{"reward": float(number % 3 == 0), "propensity": 0.5, "target": target} for number in range(300)]
    path.write_text("\n".join(map(json.dumps, shown)))
    done = invoke("ope", "--log", path, "--json")
    assert any("mean weight is not 1" in one for one in json.loads(done.stdout)["warnings"]) == warned, done.stdout


def test_a_model_is_in_every_line_or_in_none(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    line = {"reward": 1.0, "propensity": 0.5, "target": 1.0, "p_click": 0.2}
    lines = [{**line, "model": 0.3, "value": 0.3}] * 3 + [{**line, "value": 0.3}]
    for shown, name in ((lines[:3], "DR"), ([line] * 3, "DR, constant model")):
        path.write_text("\n".join(map(json.dumps, shown)))
        estimates = json.loads(invoke("ope", "--log", path, "--json").stdout)["estimates"]
        assert [one for one in estimates if one.startswith("DR")] == [name]
    path.write_text("\n".join(map(json.dumps, lines)))
    done = invoke("ope", "--log", path)
    assert done.exit_code == 2
    assert "log.jsonl:4: a model is" in told(done)


def test_where_nothing_can_be_written_nothing_is_read(tmp_path: Path) -> None:
    done = invoke("ope", "--export", tmp_path / "none" / "log.jsonl")
    assert done.exit_code == 2
    assert "there is no folder" in told(done)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = invoke("ope", "--log", tmp_path / "none.jsonl")
    assert done.exit_code == 2
    assert "cannot read" in done.stderr
