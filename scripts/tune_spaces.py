"""Which options of which method `agerank tune` searches, and where."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.registry import Strategy


class Trial(Protocol):
    """What of an optuna trial is used."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Range:
    """A number between bounds, searched by its order of magnitude."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ask(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def ask(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, list(self.values))


Space = dict[str, Range | Choice]

#: How much is explored, in units of the lambda that a method begins with: of every method that takes one.
STRENGTH = Range(0.03, 100.0)
_SCOPES = Choice(("request", "version"))
_BOTH = Choice(("thompson", "ucb"))
_NOVELTY = Choice((None, 30.0, 100.0, 300.0, 1_000.0))

#: What else there is; methods that are not named here have no more than their strength.
SPACES: dict[str, Space] = {
    "greedy": {},
    "random": {},
    "epsilon_greedy": {"epsilon": Range(0.005, 0.3)},
    "age": {
        "uncertainty": _BOTH,
        "rate": Choice((0.01, 0.03, 0.1, 0.3)),
        "mask_scope": _SCOPES,
        "gate": Choice(("learned", "none")),
        "direction": Choice(("fgm", "pgd")),
        "novelty": _NOVELTY,
    },
    "ensemble": {"uncertainty": _BOTH, "scope": _SCOPES},
    "gradient": {"uncertainty": _BOTH, "ridge": Range(1e-4, 1.0)},
    "underestimation": {"uncertainty": _BOTH, "ridge": Range(1e-4, 1.0), "impressions": Range(10.0, 3_000.0)},
    "plug_ts": {
        "covariance": Choice(("diagonal", "none")),
        "ridge": Choice((0.01, 0.1, 1.0)),
        "scope": Choice(("candidate", "request", "version")),
    },
    "mc_dropout": {
        "uncertainty": _BOTH,
        "dropout": Choice(("full", "last_layer")),
        "rate": Choice((0.01, 0.03, 0.1, 0.3)),
        "mask_scope": _SCOPES,
        "novelty": _NOVELTY,
    },
    "multi_head": {"uncertainty": _BOTH, "scope": _SCOPES},
    "guideboot": {"alpha": Range(0.1, 10.0), "guidance": Choice(("item", "fields")), "scope": _SCOPES},
    "online_guideboot": {"alpha": Range(0.1, 10.0), "guidance": Choice(("item", "fields")), "scope": _SCOPES},
    "giro": {"pseudo": Range(0.03, 3.0)},
    "item_laplace": {"uncertainty": _BOTH, "prior_sd": Range(0.1, 2.0)},
    "item_posterior": {"uncertainty": _BOTH, "prior_sd": Range(0.1, 2.0), "z": Range(0.1, 2.0)},
    "deep_ts_beta": {"reshaping": Range(0.1, 10.0)},
}
#: Methods whose strength is an option of their own, or that have none.
WITHOUT_LAMBDA = ("greedy", "random", "epsilon_greedy")


def space(fixed: Strategy, given: Collection[str]) -> Space:
    """What to search: all but the options that were given. With a budget the controller finds the strength."""
    start = fixed.lambda_
    free = fixed.budget is None and fixed.method not in WITHOUT_LAMBDA
    strength: Space = {"lambda": Range(start * STRENGTH.low, start * STRENGTH.high)} if free else {}
    every = {**strength, **SPACES.get(fixed.method, {})}
    return {name: one for name, one in every.items() if name not in given}


def ask(trial: Trial, searched: Space) -> dict[str, Any]:
    """One point of the space."""
    return {name: one.ask(trial, name) for name, one in searched.items()}


def begin(fixed: Strategy, searched: Space) -> dict[str, Any]:
    """The point of a method's own defaults, as far as the space holds them."""
    options = {**fixed.options, "lambda": fixed.lambda_}
    return {name: options[name] for name, one in searched.items() if options[name] in one}
