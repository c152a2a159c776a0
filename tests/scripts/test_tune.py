import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.registry import METHODS, build
from scripts.cli import app
from scripts.tune_spaces import SPACES, STRENGTH, WITHOUT_LAMBDA, Choice, Range, ask, begin, space

Invoke = Callable[..., Result]


class Corner:
    """A trial that asks for an end of every range."""

    def __init__(self, end: int) -> None:
        self._end = end

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        assert log
        assert 0.0 < low < high
        return (low, high)[self._end]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self._end]


@pytest.mark.parametrize("method", METHODS)
def test_every_corner_of_a_space_is_a_strategy(method: str) -> None:
    fixed = build(method, {})
    searched = space(fixed, ())
    for end in (0, -1):
        options = {name: value for name, value in ask(Corner(end), searched).items() if value is not None}
        strategy = build(method, options)
        assert strategy.method == method
        assert strategy.budget is None
        if "lambda" in searched:
            assert strategy.lambda_ == fixed.lambda_ * (STRENGTH.low, STRENGTH.high)[end]
    assert build(method, begin(fixed, searched)) == fixed


def test_a_budget_takes_the_place_of_the_strength() -> None:
    assert "lambda" in space(build("ensemble", {}), ())
    assert "lambda" not in space(build("ensemble", {"budget": 0.05}), ("budget",))


def test_what_is_held_is_not_searched() -> None:
    searched = space(build("age", {"rate": 0.2}), ("rate",))
    assert "rate" not in searched
    assert "mask_scope" in searched


def test_spaces_are_of_methods_that_exist() -> None:
    assert set(SPACES) <= set(METHODS)
    assert set(WITHOUT_LAMBDA) <= set(METHODS)
    assert all(isinstance(one, Range | Choice) for options in SPACES.values() for one in options.values())


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    size = ("--worlds", "glm", "--visits", 300, "--seeds", 2, "--jobs", 1)
    return lambda *arguments: CliRunner().invoke(app, ["tune", *map(str, (*arguments, *size))])


def test_a_study_is_recorded_and_goes_on(invoke: Invoke, tmp_path: Path) -> None:
    first = invoke("epsilon_greedy", "--trials", 2, "--json")
    assert first.exit_code == 0, first.output
    lives = (tmp_path / "agerank-tune.jsonl").read_text().splitlines()
    assert {json.loads(line)["settings"]["seed"] for line in lives} == {0, 1}
    done = json.loads(invoke("epsilon_greedy", "--trials", 3, "--json").stdout)
    assert len({trial["options"]["epsilon"] for trial in done["trials"]}) == 3
    gains = [trial["gain"] for trial in done["trials"]]
    assert gains == sorted(gains, reverse=True)
    assert {"method": "epsilon_greedy", "epsilon": 0.1} in [trial["options"] for trial in done["trials"]]
    for trial in done["trials"]:
        assert trial["gain"] == pytest.approx(sum(trial["gains"]) / 2)
        build("epsilon_greedy", trial["options"])
    assert {trial["gain"] for trial in json.loads(first.stdout)["trials"]} <= set(gains)
    assert "the best of 3 trials" in invoke("epsilon_greedy", "--trials", 3).stdout


def test_a_grid_is_searched_to_its_end_and_no_further(invoke: Invoke) -> None:
    arguments = "epsilon_greedy", "--try", "epsilon=[0.1, 0.3]", "--set", 'estimate="model"', "--json", "--trials"
    for trials in (1, 9, 9):
        done = invoke(*arguments, trials)
        assert done.exit_code == 0, done.output
    options = [trial["options"] for trial in json.loads(done.stdout)["trials"]]
    assert sorted(one.pop("epsilon") for one in options) == [0.1, 0.3]
    assert options == [{"method": "epsilon_greedy", "estimate": "model"}] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("witchcraft",), "no method 'witchcraft'"),
        (("greedy", "--budget", 0.1), "no strength"),
        (("age", "--budget", 7), "budget must lie"),
        (("age", "--first-seed", 99), "for reports"),
        (("age", "--worlds", "mars"), "no world 'mars'"),
        (("guideboot", "--worlds", "r6b,glm"), "guideboot cannot live in glm: items are told apart by"),
        (("age", "--runs", "."), ". is a folder"),
        (("age", "--set", "rate"), "--set takes NAME=VALUE"),
        (("age", "--set", "colour=1"), "unknown options"),
        (("age", "--try", "rate=0.1"), "--try takes NAME=[VALUE, ...]"),
        (("age", "--try", "rate=[0.1, 7.0]"), "rate must"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments: tuple[object, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["tune", *map(str, arguments), "--trials", "1", "--seeds", "2", "--jobs", "1"])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)  # what Python does for a module that is not there
    done = CliRunner().invoke(app, ["tune", "epsilon_greedy", "--worlds", "glm"])
    assert done.exit_code == 2
    assert done.stderr == "agerank tune needs optuna: pip install 'agerank[train,tune]'\n"
