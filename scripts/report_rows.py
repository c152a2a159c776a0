"""What a table of `agerank report` is made of, and the rows that stand in several of them.

Settings that no paper states were chosen by `agerank tune` on the world r6b of seeds 0 and 1, three to five a method,
for those of Table 1 (docs/experiments.md). The others are as their papers have them, or our guesses.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy.

    Args:
        label: as in the paper.
        options: as in the settings: `method` and its options.
        paper: what the paper reports, in its own unit; None where it does not.
        again: the paper's second column: half of the log in [1], the online experiment in [2].
    """

    label: str
    options: dict[str, Any]
    paper: float | None = None
    again: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a report prints.

    Args:
        title: of the table.
        unit: of the paper's figures.
        reference: label of the row that the others are compared with.
        world: where it is at home.
        rows: in the paper's order.
        throughput: also tell how many items left their exploration phase.
        frontier: rows are methods at several budgets, "METHOD at BUDGET".
    """

    title: str
    unit: str
    reference: str
    world: str
    rows: tuple[Row, ...]
    throughput: bool = False
    frontier: bool = False


def age(**options: Any) -> dict[str, Any]:
    """AGE-TS with our settings for the reports, but for the options given."""
    return {"method": "age", "rate": 0.1, "budget": 0.2, "novelty": 30.0, **options}


def age_ucb(**options: Any) -> dict[str, Any]:
    return age(uncertainty="ucb", **options)


def ucb(method: str, **options: Any) -> dict[str, Any]:
    return {"method": method, "uncertainty": "ucb", **options}


def decayed(horizon: int) -> dict[str, Any]:
    return {"method": "epsilon_greedy", "horizon": horizon}


BARE_GREEDY = Row(label="greedy", options={"method": "greedy"})
EPSILON: dict[str, Any] = {"method": "epsilon_greedy", "epsilon": 0.05}
BARE_EPSILON = Row(label="epsilon-greedy", options=EPSILON)
GREEDY = Row(label="greedy", options={"method": "greedy"}, paper=39149.0, again=19346.0)
ITEM_LAPLACE = Row(label="item-Laplace (ours)", options={"method": "item_laplace"})
ITEM_POSTERIOR = Row(label="item-posterior (ours)", options={"method": "item_posterior"})
AGE_TS = Row(label="AGE-TS", options=age(), paper=50111.0, again=24875.0)
AGE_UCB = Row(label="AGE-UCB", options=age_ucb(), paper=47874.0, again=23042.0)
