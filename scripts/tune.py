"""agerank tune: options of a method that pay in simulated worlds, found by optuna and recorded."""

import json
import os
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from models.evaluation.worlds.world import TUNING_SEEDS, check_seeds
from models.registry import METHODS, Strategy, build
from scripts.outputs import to_write
from scripts.runs import Record, Results, revision, run_all
from scripts.tune_spaces import WITHOUT_LAMBDA, Choice, Space, ask, begin, space
from scripts.worlds import Learning, Life, Scale, check, open_world, scale_of

if TYPE_CHECKING:
    import optuna

GREEDY: dict[str, Any] = {"method": "greedy"}


def tune(
    method: Annotated[str, typer.Argument(help="Of docs/algorithms.md.")],
    worlds: Annotated[
        str, typer.Option(help="r6b, r6b_still, glm, ads_a, ads_b or files of `agerank world`, separated by commas.")
    ] = "r6b",
    trials: Annotated[int, typer.Option(min=1, help="How many this study shall have; those it has count.")] = 30,
    seeds: Annotated[int, typer.Option(min=1, max=len(TUNING_SEEDS), help="Worlds of each kind a trial.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="Below 100: reports never use these.")] = 0,
    visits: Annotated[int | None, typer.Option(min=1, help="Of each life. Default: a quarter of the world's.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Hold every trial to this share of changed slots: all cost the same.")
    ] = None,
    fixed: Annotated[
        list[str], typer.Option("--set", help="Hold an option: NAME=VALUE, the value as in agerank.toml. Repeatable.")
    ] = [],  # noqa: B006
    tried: Annotated[
        list[str],
        typer.Option(
            "--try", help="Search a grid instead: NAME=[VALUE, ...]; other options stay as they are. Repeatable."
        ),
    ] = [],  # noqa: B006
    learning: Annotated[Learning, typer.Option("--protocol", help="As of `agerank report`.")] = Learning.STREAM,
    study: Annotated[
        Path, typer.Option(callback=to_write, help="SQLite file of the study; it goes on where it was.")
    ] = Path("agerank-tune.db"),
    runs: Annotated[
        Path,
        typer.Option(callback=to_write, help="JSON lines, one a finished run; runs that are in it are not repeated."),
    ] = Path("agerank-tune.jsonl"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all trials, the best first.")] = False,
) -> None:
    """Search the options of a method for those with the most clicks in simulated worlds.

    A trial is worth the mean gain in expected clicks over greedy, of all worlds and seeds alike; the first is the
    method as it is without options. Only seeds 0 to 99 are used, and no report ever uses those.

        agerank tune age --worlds r6b,ads_b --trials 40
        agerank tune ensemble --set 'uncertainty="ucb"' --try 'lambda=[0.1, 0.3, 1.0]'
    """
    if method not in METHODS:
        raise typer.BadParameter(f"no method {method!r}; there are {', '.join(sorted(METHODS))}", param_hint="METHOD")
    if budget is not None and method in WITHOUT_LAMBDA:
        raise typer.BadParameter(f"{method} has no strength to hold to a budget", param_hint="--budget")
    span = range(first_seed, first_seed + seeds)
    try:
        check_seeds(span, tuning=True)
        places = [(name, _scale(name, learning, visits)) for name in worlds.split(",")]
        given = {**_lines(fixed, "--set"), **({} if budget is None else {"budget": budget})}
        held, grid = build(method, {"method": method, **given}), _grid(tried)
        points = list(product(*grid.values()))
        built = [build(method, {"method": method, **given, **dict(zip(grid, point, strict=True))}) for point in points]
        for world, _ in places:
            _check(built, world, first_seed)
        results = Results(runs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    setting = f"{worlds} {learning} seeds {span.start}-{span.stop - 1} visits {visits} budget {budget}"
    name = " ".join([method, setting, *fixed, *(f"try {one}" for one in tried)])
    searched: Space = {one: Choice(tuple(values)) for one, values in grid.items()} or space(held, given)
    found = _study(name, study, grid)
    complete = len(_complete(found))
    if not (complete or grid):
        found.enqueue_trial(begin(held, searched))
    judge = _Judge(places, span, jobs or os.cpu_count() or 1, results, quiet=as_json)

    def objective(trial: "optuna.Trial") -> float:
        asked = {name: value for name, value in ask(trial, searched).items() if value is not None}
        options = {"method": method, **given, **asked}
        gains, changed = judge.gains(build(method, options))
        for key, value in (("options", options), ("gains", gains), ("changed", changed), ("revision", revision())):
            trial.set_user_attr(key, value)
        return statistics.fmean(gains)

    found.optimize(objective, n_trials=max(min(trials, len(points) if grid else trials) - complete, 0))
    _print(found, name, as_json=as_json)


def _lines(lines: Sequence[str], option: str) -> dict[str, Any]:
    """Raises ValueError: one is not NAME=VALUE."""
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{option} takes NAME=VALUE as a line of agerank.toml has it: {error}") from None


def _grid(tried: Sequence[str]) -> dict[str, list[Any]]:
    """Raises ValueError: one is not a list of values."""
    grid = _lines(tried, "--try")
    for name, values in grid.items():
        if not (isinstance(values, list) and values):
            raise ValueError(f"--try takes NAME=[VALUE, ...], got {name} = {values!r}")
    return grid


def _check(strategies: Sequence[Strategy], world: str, seed: int) -> None:
    """Raises ValueError: one cannot live in this world."""
    spec = open_world(world, seed).spec
    for strategy in strategies:
        try:
            check(strategy, spec)
        except ValueError as error:
            raise ValueError(f"{strategy.method} cannot live in {world}: {error}") from None


def _scale(world: str, learning: Learning, visits: int | None) -> Scale:
    scale = scale_of(world, learning)
    return scale._replace(visits=visits or scale.visits // 4)


class _Judge:
    """Lives of a strategy and of greedy, in the same worlds."""

    def __init__(
        self, places: Sequence[tuple[str, Scale]], seeds: range, processes: int, results: Results, *, quiet: bool
    ) -> None:
        self._places, self._seeds, self._processes = places, seeds, processes
        self._results, self._quiet = results, quiet
        self._greedy = [one.result["expected_clicks"] for one in self._lives(build("greedy", GREEDY))]

    def gains(self, strategy: Strategy) -> tuple[list[float], float]:
        """(gain over greedy in each world and seed, mean share of changed slots)."""
        records = self._lives(strategy)
        clicks = [one.result["expected_clicks"] for one in records]
        gains = [one / base - 1.0 for one, base in zip(clicks, self._greedy, strict=True)]
        return gains, statistics.fmean(one.result["changed"] for one in records)

    def _lives(self, strategy: Strategy) -> list[Record]:
        lives = [Life(world, strategy, seed, scale) for (world, scale), seed in product(self._places, self._seeds)]
        return run_all(lives, title=strategy.name, processes=self._processes, quiet=self._quiet, results=self._results)


def _study(name: str, path: Path, grid: Mapping[str, list[Any]]) -> "optuna.Study":
    try:
        import optuna  # an extra that nothing else needs: the help and the checks before this do without
    except ModuleNotFoundError:
        typer.echo("agerank tune needs optuna: pip install 'agerank[train,tune]'", err=True)
        raise typer.Exit(2) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=name, storage=f"sqlite:///{path}", load_if_exists=True, direction="maximize")
    # A study that goes on numbers its grid as before, but must not draw again what it drew when it began.
    fresh = optuna.samplers.TPESampler(seed=len(study.trials))
    study.sampler = optuna.samplers.GridSampler(grid, seed=0) if grid else fresh
    return study


def _complete(study: "optuna.Study") -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _print(study: "optuna.Study", name: str, *, as_json: bool) -> None:
    best = sorted(_complete(study), key=lambda trial: -trial.value)
    if as_json:
        rows = [{"gain": trial.value, **trial.user_attrs} for trial in best]
        print(json.dumps({"study": name, "trials": rows}, indent=1))
        return
    console = Console()
    console.print(f"{name}: the best of {len(best)} trials")
    for trial in best[:10]:
        console.print(f"{trial.value:+.2%}  changed {trial.user_attrs['changed']:.1%}  {trial.user_attrs['options']}")
