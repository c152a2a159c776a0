"""agerank ope: what another policy would have earned, from our own log."""

import json
from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from models.evaluation.estimators import FEW, Estimate, Logged, Support, dr, ips, mean, overlap, replay, snips, support
from models.metrics import known
from scripts.outputs import to_write
from scripts.served_log import UNREADABLE, Line, LogFileError, connected, impressions, read_lines, write_lines
from service.settings import SettingsError, read


def ope(
    log: Annotated[
        Path | None, typer.Option(help="A file of JSON lines. Default: the served and feedback streams.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Only what this strategy showed.")] = None,
    export: Annotated[
        Path | None, typer.Option(callback=to_write, help="Write what the streams hold to this file, to add to it.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: AGERANK_CONFIG, else agerank.toml where there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate what a policy would have earned that never ran, from the log of one that explored at random.

    From the streams the target is the greedy order: what would the same models have earned without exploring? Only
    requests count that showed one item under a strategy that logs propensities (random, epsilon_greedy, or any with
    propensity_samples), and whose attribution window is over.

    For any other target export the log, replace `target` by the probability with which it would have shown the item,
    and read the file again. With `model`, a prediction of the reward, and `value`, its mean under the target, of a
    model that did not learn from this log, in every line, the doubly robust estimate goes by that model.

        agerank ope --export log.jsonl

        {"reward": 1.0, "propensity": 0.05, "target": 0.9, "model": 0.04, "value": 0.06}
    """
    lines = _told(log, strategy, config)
    if export:
        write_lines(lines, export)
    try:
        logged = _logged(lines)
    except ValueError as error:  # DeterministicLogError is one
        _stop(str(error))
    found = _estimates(logged, "DR" if lines[0].model is not None else "DR, constant model")
    if as_json:
        print(json.dumps(_document(logged, found), allow_nan=False))
    else:
        _print(logged, found)


def _told(log: Path | None, strategy: str | None, config: Path | None) -> list[Line]:
    """What the estimates go by. Why the rest was left out is told."""
    try:
        lines, left_out = _lines(log, config)
    except (LogFileError, SettingsError) as error:
        raise typer.BadParameter(str(error)) from None
    except UNREADABLE as error:
        _stop(f"ope cannot read the log: {error}")
    if strategy is not None:
        left_out["of another strategy"] = sum(line.strategy != strategy for line in lines)
        lines = [line for line in lines if line.strategy == strategy]
    for reason, count in left_out.items():
        if count:
            typer.echo(f"left out {count:,} impressions: {reason}", err=True)
    if not lines:
        _stop("nothing is left to judge by: a log without propensities is deterministic")
    return lines


def _stop(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(1)


def _lines(log: Path | None, config: Path | None) -> tuple[list[Line], Counter[str]]:
    if log is not None:
        try:
            return read_lines(log), Counter()
        except OSError as error:
            raise LogFileError(f"cannot read {log}: {error.strerror}") from None
    settings = read(config)
    with connected(settings) as client:
        return impressions(settings, client)


def _logged(lines: Sequence[Line]) -> Logged:
    """Without a model: a constant one, the mean prediction, which steadies IPS and biases nothing."""
    columns = {name: np.array([getattr(line, name) for line in lines]) for name in ("reward", "propensity", "target")}
    if lines[0].model is not None:  # and so in every line
        model, value = (np.array([getattr(line, name) for line in lines]) for name in ("model", "value"))
        return Logged(**columns, model=model, value=value)
    predicted = [line.p_click for line in lines if line.p_click is not None]
    if not predicted:
        return Logged(**columns)
    constant = np.full(len(lines), float(np.mean(predicted)))
    return Logged(**columns, model=constant, value=constant)


def _estimates(logged: Logged, dr_name: str) -> dict[str, Estimate]:
    found = {"IPS": ips(logged), "SNIPS": snips(logged)}
    if logged.model is not None:
        found[dr_name] = dr(logged)
    if np.isin(logged.target, (0.0, 1.0)).all() and np.ptp(logged.propensity) < 1e-9:
        found["replay"] = replay(logged)
    found["as logged"] = mean(logged.reward)
    return found


def _document(logged: Logged, found: dict[str, Estimate]) -> dict[str, Any]:
    about = support(logged)
    return {
        "estimates": {name: _known(one) for name, one in found.items()},
        "support": {**about._asdict(), "mean": _known(about.mean)},
        "overlap": [row._asdict() for row in overlap(logged)],
        "warnings": _warnings(about),
    }


def _known(one: Estimate) -> dict[str, float | None]:
    return {name: known(value) for name, value in one._asdict().items()}


def _warnings(about: Support) -> list[str]:
    found = []
    if about.carried < FEW:
        found.append(
            f"too few for an interval: {about.carried:.1f} clicks carry the estimates (or lines without one, where "
            f"those are fewer), and {FEW:g} are needed"
        )
    if not about.mean.low <= 1.0 <= about.mean.high:
        found.append("the mean weight is not 1: the log lacks what the target shows, or its propensities are wrong")
    return found


def _print(logged: Logged, found: dict[str, Estimate]) -> None:
    console, about = Console(), support(logged)
    table = Table(title=f"reward an impression, of {about.impressions:,}")
    for name in ("estimator", "value", "95 % interval"):
        table.add_column(name, justify="left" if name == "estimator" else "right")
    for name, one in found.items():
        table.add_row(name, *_texts(one, digits=5))
    console.print(table)
    weight, interval = _texts(about.mean, digits=3)
    console.print(
        f"the target might have shown {about.matched:,} of them; effective sample {about.effective:,.0f}; "
        f"largest weight {about.largest:,.1f}; mean weight {weight} ({interval}); {about.certain:,} with propensity 1"
    )
    for line in _warnings(about):
        console.print(line)
    rows = Table(title="overlap")
    for name in ("propensity at least", "impressions", "share of the weight", "largest weight"):
        rows.add_column(name, justify="right")
    for row in overlap(logged):
        rows.add_row(f"{row.propensity:g}", f"{row.impressions:,}", f"{row.share:.1%}", f"{row.largest:,.1f}")
    console.print(rows)


def _texts(one: Estimate, *, digits: int) -> tuple[str, str]:
    """Value and interval; in words what so few impressions do not tell."""
    value, low, high = ("-" if isnan(number) else f"{number:.{digits}f}" for number in one)
    return value, "too few" if isnan(one.low) else f"{low} to {high}"
