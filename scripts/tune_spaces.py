"""Which options of which method `agerank tune` searches, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Trial(Protocol):
    """What of an optuna trial is used."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Range:
    """A number between bounds, searched by its order of magnitude."""

    low: float
    high: float

    def ask(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def ask(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, list(self.values))


Space = dict[str, Range | Choice]

#: How much is explored: of every method that takes a lambda.
STRENGTH = Range(0.03, 30.0)
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
    "deep_ts_beta": {"reshaping": Range(0.1, 10.0)},
}
#: Methods whose strength is an option of their own, or that have none.
WITHOUT_LAMBDA = ("greedy", "random", "epsilon_greedy")


def space(method: str, *, budget: float | None) -> Space:
    """What to search. With a budget the controller finds the strength."""
    strength: Space = {} if budget is not None or method in WITHOUT_LAMBDA else {"lambda": STRENGTH}
    return {**strength, **SPACES.get(method, {})}


def ask(trial: Trial, method: str, budget: float | None) -> dict[str, Any]:
    """One strategy of the space, as the settings have it."""
    options = {name: one.ask(trial, name) for name, one in space(method, budget=budget).items()}
    given = {name: value for name, value in options.items() if value is not None}
    return {"method": method, **given, **({} if budget is None else {"budget": budget})}
