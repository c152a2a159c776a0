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

import msgspec
import numpy as np
import typer
from msgspec import Meta

from scripts.outputs import to_write
from scripts.replay_inputs import readable, shown
from scripts.replay_runs import Format, Log
from scripts.upworthy_scores import Arms, design, foretold

Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]

_FIRST = 100_000  # of the log's ids
_FOLDS = 5  # of weeks


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the archive."""

    item_id: Count
    test_id: str
    arm: str  # number in its test
    headline: str
    week: Count
    impressions: Count
    clicks: Count
    valid: bool

    @property
    def id(self) -> str:
        return f"id-{_FIRST + self.item_id}"

    @property
    def counts(self) -> dict[str, int]:
        return {"impressions": self.impressions, "clicks": self.clicks}


def archive(lines: Iterable[str]) -> list[Arm]:
    """Of a csv file. Raises ValueError, with the line: a column is missing, or holds what it should not."""
    reader, found = csv.DictReader(lines), []
    try:
        if missing := [name for name in Arm.__struct_fields__ if name not in (reader.fieldnames or ())]:
            raise ValueError(f"no column {', '.join(missing)}")
        for row in reader:
            found.append(msgspec.convert(row, Arm, strict=False))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    return found


def items(arms: Iterable[Arm], log: frozenset[str]) -> list[dict[str, object]]:
    """One for each valid arm that may be known, those of the log first.

    Args:
        log: ids of the log's items.

    Raises:
        ValueError: there is none of the log, or none of the past.
    """
    valid = [arm for arm in arms if arm.valid]
    judged = [arm for arm in valid if arm.id in log]
    tests, headlines = {arm.test_id for arm in judged}, {arm.headline for arm in judged}
    past = [arm for arm in valid if arm.test_id not in tests and arm.headline not in headlines]
    if not judged or not past:
        raise ValueError(f"no valid arm {'of the past' if judged else 'has the id of one of the items of the log'}")
    found = []
    for arm, score in zip(judged + past, _scores(judged, past), strict=True):
        features = {"score": round(score, 5), "test": arm.test_id, "arm": arm.arm}
        item: dict[str, object] = {"id": arm.id, "features": features}
        found.append(item if arm.id in log else item | arm.counts)
    return found


def _scores(judged: Sequence[Arm], past: Sequence[Arm]) -> list[float]:
    arms, unknown = [*judged, *past], np.zeros(len(judged), dtype=np.int64)
    known = Arms(
        [arm.headline for arm in arms],
        first=np.array([arm.arm == "0" for arm in arms]),
        test=np.unique([arm.test_id for arm in arms], return_inverse=True)[1],
        impressions=np.concatenate([unknown, [arm.impressions for arm in past]]),
        clicks=np.concatenate([unknown, [arm.clicks for arm in past]]),
    )
    week = np.array([arm.week for arm in arms])  # a test is over within one
    fold = np.searchsorted(np.quantile(week[len(judged) :], np.arange(1, _FOLDS) / _FOLDS), week)
    fold[: len(judged)] = _FOLDS
    return [float(score) for score in foretold(design(known), known, fold)]


def main(
    arms: Annotated[Path, typer.Option(help="All arms of the archive: a packed csv file, see above.")],
    log: Annotated[Path, typer.Option(help="The log to be replayed.")],
    out: Annotated[Path, typer.Option(callback=to_write, help="File to write.")],
) -> None:
    """Arms of the Upworthy Research Archive as items of `agerank replay --items`.

    The archive has a row for each arm and the columns item_id, test_id, arm (its number in the test), headline, week,
    impressions, clicks and valid (True or False). The arm of item_id N is id-(100,000 + N) in the log.
    """
    with readable(log):
        judged = frozenset(shown(Log(log, Format.R6B)))
    try:
        with readable(arms, "--arms"), gzip.open(arms, "rt", encoding="utf-8", newline="") as file:
            found = items(archive(file), judged)
    except ValueError as error:
        raise typer.BadParameter(f"{arms}: {error}", param_hint="--arms") from None
    out.write_text("".join(json.dumps(item) + "\n" for item in found))
    past = sum("clicks" in item for item in found)
    typer.echo(f"{len(found) - past} of the log's {len(judged)} items, {past} of the past")


if __name__ == "__main__":
    typer.run(main)
