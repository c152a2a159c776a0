"""python -m scripts.upworthy: headlines of the Upworthy Research Archive as items of `agerank replay --items`.

A log's arm `id-N` is the archive's item N - 100,000. Items of the log get their words. All others get their impressions
and clicks too, as the past, but for those of its tests and those whose headline is one of the log's. Words, alone and
in pairs, count where 20 tests of the past have them.

References:
    [1] Matias et al. 2021, "The Upworthy Research Archive, a time series of experiments in U.S. media", Scientific Data
"""

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from models.evaluation.r6b import Tally
from scripts.outputs import to_write
from scripts.replay_runs import Format, Log, read_log

Arm = dict[str, str]  # a row of the archive

_FIRST = 100_000  # of the log's ids
_TESTS = 20
_TOKEN = re.compile(r"[a-z0-9']+|[!?.:,\"$%#]")


def words(headline: str) -> list[str]:
    """Its words and marks, and those that stand beside each other, each once, in order. "^" begins it, "$" ends it."""
    found = _TOKEN.findall(headline.lower())
    pairs = zip(["^", *found], [*found, "$"], strict=True)
    return sorted({*found, *(" ".join(pair) for pair in pairs)})


def items(arms: Iterable[Arm], log: frozenset[str]) -> Iterator[dict[str, object]]:
    """One for each valid arm that may be known.

    Args:
        arms: rows of the archive.
        log: ids of the log's items.
    """
    valid = [arm for arm in arms if arm["valid"] == "True"]
    judged = [arm for arm in valid if _id(arm) in log]
    tests, headlines = ({arm[name] for arm in judged} for name in ("test_id", "headline"))
    past = [arm for arm in valid if arm["test_id"] not in tests and arm["headline"] not in headlines]
    used = Counter(word for _, word in {(arm["test_id"], word) for arm in past for word in words(arm["headline"])})
    for arm in judged + past:
        known = [word for word in words(arm["headline"]) if used[word] >= _TESTS]
        item: dict[str, object] = {"id": _id(arm), "features": {"words": known, "test": arm["test_id"]}}
        counts = {name: int(arm[name]) for name in ("impressions", "clicks")}
        yield item if _id(arm) in log else item | counts


def _id(arm: Arm) -> str:
    return f"id-{_FIRST + int(arm['item_id'])}"


def main(
    arms: Annotated[Path, typer.Option(help="upworthy_arms.csv.gz, all arms of the archive.")],
    log: Annotated[Path, typer.Option(help="The log to be replayed.")],
    out: Annotated[Path, typer.Option(callback=to_write, help="File to write.")],
) -> None:
    """Headlines of the Upworthy Research Archive as items of `agerank replay --items`."""
    shown = frozenset(one for event in read_log(Log(log, Format.R6B), Tally()) for one in event.candidates)
    with gzip.open(arms, "rt", encoding="utf-8", newline="") as file:
        found = list(items(csv.DictReader(file), shown))
    out.write_text("".join(json.dumps(item) + "\n" for item in found))
    past = sum("clicks" in item for item in found)
    typer.echo(f"{len(found) - past} of the log's {len(shown)} items, {past} of the past")


if __name__ == "__main__":
    typer.run(main)
