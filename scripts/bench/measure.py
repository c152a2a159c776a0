"""Runs, medians and ratios. What is compared is measured by turns, so that noise of the machine hits all of it."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from models.types import Array

Tell = Callable[[str], None]  # what a benchmark is at, for whoever waits


def interleave(work: Mapping[str, Callable[[], object]], *, runs: int, seconds: float, tell: Tell) -> dict[str, Array]:
    """Name -> (runs,) float64: the median seconds of one call in each run.

    Args:
        work: what to call.
        runs: in each, everything has its turn.
        seconds: of one turn; at least three calls are made, whatever they take.
        tell: is told of each run.
    """
    for call in work.values():  # the first call of anything pays for what is made once
        call()
    found: dict[str, list[float]] = {name: [] for name in work}
    for number in range(1, runs + 1):
        tell(f"run {number} of {runs}")
        for name, call in work.items():
            found[name].append(_turn(call, seconds))
    return {name: np.array(medians) for name, medians in found.items()}


def _turn(call: Callable[[], object], seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def ratio(ours: Array, rival: Array) -> float:
    """The median of ours over the rival's, each pair from the same run. Both (runs,)."""
    return float(np.median(ours / rival))
