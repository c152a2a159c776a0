"""python -m scripts.upworthy: arms of the Upworthy Research Archive as items of `agerank replay --items`.

A log's arm `id-N` is the archive's item N - 100,000. The others are of the past, with their impressions and clicks,
without those of the log's tests and those whose headline is one of the log's but for case and marks. Each has a score
of its headline (`scripts.upworthy_scores`): those of the log by all of the past, those of the past by the weeks of
which they are not, since from scores that had seen their clicks a model would learn to trust scores too much.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from scripts.outputs import to_write
from scripts.replay_inputs import readable, survey
from scripts.replay_runs import Format, Log
from scripts.upworthy_arms import Arm, read_arms
from scripts.upworthy_scores import Arms, design, foretold

_FOLDS = 5  # of weeks


def items(arms: Sequence[Arm], log: frozenset[str]) -> list[dict[str, object]]:
    """One for each valid arm that may be known, those of the log first.

    Args:
        log: ids of the log's items.

    Raises:
        ValueError: there is none of the log, or the past is none to learn from.
    """
    shown = [arm for arm in arms if arm.id in log]
    tests, headlines = {arm.test_id for arm in shown}, {_bare(arm.headline) for arm in shown}
    judged = [arm for arm in shown if arm.valid]
    past = [arm for arm in arms if arm.valid and arm.test_id not in tests and _bare(arm.headline) not in headlines]
    if not judged:
        raise ValueError("no valid arm has the id of one of the items of the log")
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
    fold = np.array([_FOLDS] * len(judged) + _folds(past))
    return [float(score) for score in foretold(design(known), known, fold)]


def _folds(past: Sequence[Arm]) -> list[int]:
    if len({(arm.test_id, arm.week) for arm in past}) != len({arm.test_id for arm in past}):
        raise ValueError("a test of the past has arms of several weeks: what is of one time is not to foretell itself")
    weeks = sorted(arm.week for arm in past)
    ends = [weeks[len(weeks) * fold // _FOLDS] for fold in range(1, _FOLDS)] if weeks else []
    folds = [bisect_left(ends, arm.week) for arm in past]
    if len(set(folds)) < 2:
        raise ValueError("the past has too few weeks for some to foretell the others")
    return folds


def _bare(headline: str) -> str:
    return re.sub(r"[\W_]+", "", headline.lower())


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
        judged = frozenset(survey(Log(log, Format.R6B)).items)
    try:
        with readable(arms, "--arms"):
            found = items(read_arms(arms), judged)
    except ValueError as error:
        raise typer.BadParameter(f"{arms}: {error}", param_hint="--arms") from None
    out.write_text("".join(json.dumps(item) + "\n" for item in found))
    past = sum("clicks" in item for item in found)
    typer.echo(f"{len(found) - past} of the log's {len(judged)} items, {past} of the past")


if __name__ == "__main__":
    typer.run(main)
