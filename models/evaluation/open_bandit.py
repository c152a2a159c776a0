"""Rows of the Open Bandit Dataset, as the package `obp` carries a sample of it: one impression each, of its random log.

    ,timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3,...

The pool is every item of the campaign, which `item_context.csv` beside the log lists. Three impressions of one visit
are three rows; the position is a feature of the visit. What cannot be used is skipped and counted by its reason.

References:
    [1] Saito, Aihara, Matsutani, Narita 2020, "Open Bandit Dataset and Pipeline", arXiv:2008.07146.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from models.evaluation.r6b import Event, Tally, Unusable, usable

_USER = tuple(f"user_feature_{number}" for number in range(4))
COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score", *_USER)
#: The log's propensities are 1 / |A| as decimals.
_TOLERANCE = 1e-6


def items(lines: Iterable[str]) -> tuple[str, ...]:
    """Ids of the campaign's items, from the lines of item_context.csv. Raises ValueError: it is not that file."""
    found = tuple(row.get("item_id") or "" for row in csv.DictReader(lines))
    if len(found) < 2 or len(set(found)) != len(found) or "" in found:
        raise ValueError("item_context.csv needs a column item_id of two or more distinct items")
    return found


def events(lines: Iterable[str], tally: Tally, *, pool: Sequence[str]) -> Iterator[Event]:
    """The usable impressions, in the order of the lines.

    Rows are skipped for: incomplete_line, bad_time, bad_click, displayed_not_in_pool, and bad_propensity, which is any
    other than 1 / |A|: display was not uniform then, or certain, and a replay of it would be biased.

    Raises:
        ValueError: the header lacks a column.
    """
    stream = iter(lines)
    header = _cells(next(stream, ""))
    missing = set(COLUMNS) - set(header)
    if missing:
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    candidates, place = tuple(pool), {item: number for number, item in enumerate(pool)}
    yield from usable(lambda line: _parse(_row(header, line), candidates, place), stream, tally)


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], strict=True), [])


def _row(header: Sequence[str], line: str) -> dict[str, str]:
    try:
        cells = _cells(line)
    except csv.Error:
        raise Unusable("incomplete_line") from None
    if len(cells) != len(header):
        raise Unusable("incomplete_line")
    return dict(zip(header, cells, strict=True))


def _parse(row: Mapping[str, str], candidates: tuple[str, ...], place: Mapping[str, int]) -> Event:
    time, item, position, click, propensity, *user = (row[name] for name in COLUMNS)
    try:
        time_s = int(np.datetime64(time.removesuffix("+00:00"), "s").astype(np.int64))
    except ValueError:
        raise Unusable("bad_time") from None
    if click not in ("0", "1"):
        raise Unusable("bad_click")
    if item not in place:
        raise Unusable("displayed_not_in_pool")
    if not _uniform(propensity, len(candidates)):
        raise Unusable("bad_propensity")
    features = (f"position={position}", *(f"{number}={value}" for number, value in enumerate(user)))
    return Event(time_s, place[item], int(click), features, candidates)


def _uniform(propensity: str, items: int) -> bool:
    try:
        return abs(float(propensity) - 1.0 / items) < _TOLERANCE
    except ValueError:
        return False
