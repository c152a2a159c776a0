"""python -m scripts.upworthy: arms of the Upworthy Research Archive as items of `agerank replay --items`.

A log's arm `id-N` is the archive's item N - 100,000. The others are of the past, with their impressions and clicks, but
for those of the log's tests and those whose headline is one of the log's. Each has a score of its headline
(`scripts.upworthy_scores`): those of the log by all of the past, those of the past by the weeks of which they are not,
since from scores that had seen their clicks a model would learn to trust scores too much.

References:
    [1] Matias et al. 2021, "The Upworthy Research Archive, a time series of experiments in U.S. media", Scientific Data
"""

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from models.evaluation.r6b import Tally
from scripts.outputs import to_write
from scripts.replay_runs import Format, Log, read_log
from scripts.upworthy_scores import Arms, design, foretold

Arm = dict[str, str]  # a row of the archive

_FIRST = 100_000  # of the log's ids
_FOLDS = 5  # of weeks


def items(arms: Iterable[Arm], log: frozenset[str]) -> list[dict[str, object]]:
    """One for each valid arm that may be known, those of the log first.

    Args:
        arms: rows of the archive.
        log: ids of the log's items.
    """
    valid = [arm for arm in arms if arm["valid"] == "True"]
    judged = [arm for arm in valid if _id(arm) in log]
    tests, headlines = ({arm[name] for arm in judged} for name in ("test_id", "headline"))
    past = [arm for arm in valid if arm["test_id"] not in tests and arm["headline"] not in headlines]
    found = []
    for arm, score in zip(judged + past, _scores(judged, past), strict=True):
        features = {"score": round(score, 5), "test": arm["test_id"], "arm": arm["arm"]}
        item: dict[str, object] = {"id": _id(arm), "features": features}
        found.append(item if _id(arm) in log else item | _counts(arm))
    return found


def _scores(judged: Sequence[Arm], past: Sequence[Arm]) -> list[float]:
    arms = [*judged, *past]
    counts = [{"impressions": 0, "clicks": 0}] * len(judged) + [_counts(arm) for arm in past]
    known = Arms(
        [arm["headline"] for arm in arms],
        first=np.array([arm["arm"] == "0" for arm in arms]),
        test=np.unique([arm["test_id"] for arm in arms], return_inverse=True)[1],
        impressions=np.array([one["impressions"] for one in counts]),
        clicks=np.array([one["clicks"] for one in counts]),
    )
    week = np.array([int(arm["week"]) for arm in arms])  # a test is over within one
    fold = np.searchsorted(np.quantile(week[len(judged) :], np.arange(1, _FOLDS) / _FOLDS), week)
    fold[: len(judged)] = _FOLDS
    return [float(score) for score in foretold(design(known), known, fold)]


def _counts(arm: Arm) -> dict[str, int]:
    return {name: int(arm[name]) for name in ("impressions", "clicks")}


def _id(arm: Arm) -> str:
    return f"id-{_FIRST + int(arm['item_id'])}"


def main(
    arms: Annotated[Path, typer.Option(help="upworthy_arms.csv.gz, all arms of the archive.")],
    log: Annotated[Path, typer.Option(help="The log to be replayed.")],
    out: Annotated[Path, typer.Option(callback=to_write, help="File to write.")],
) -> None:
    """Arms of the Upworthy Research Archive as items of `agerank replay --items`."""
    shown = frozenset(one for event in read_log(Log(log, Format.R6B), Tally()) for one in event.candidates)
    with gzip.open(arms, "rt", encoding="utf-8", newline="") as file:
        found = items(csv.DictReader(file), shown)
    out.write_text("".join(json.dumps(item) + "\n" for item in found))
    past = sum("clicks" in item for item in found)
    typer.echo(f"{len(found) - past} of the log's {len(shown)} items, {past} of the past")


if __name__ == "__main__":
    typer.run(main)
