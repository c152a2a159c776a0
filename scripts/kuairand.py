"""KuaiRand as impressions: its three parquet files, joined by id (docs/ingest.md).

References:
    [1] Gao et al. 2022, "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos",
        arXiv:2208.08696
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
from pyarrow import parquet

from models.spec import FeatureSpec, Field, Side
from scripts.history import Line, LogError, Logged, Skipped, featured, parsed, refuse_columns
from scripts.kuairand_context import CONTEXT, Context, Row

KEYS = {"user": "user_id", "item": "video_id"}


def read_kuairand(paths: Sequence[Path], spec: FeatureSpec, skipped: Skipped) -> Iterator[Logged]:
    """The impressions in time order, exact repetitions of one dropped and counted.

    Args:
        paths: the three files, in any order: they are told apart by their columns.
        spec: names columns of users (side user), of videos (side item) and CONTEXT (side context).
        skipped: told of what is dropped.

    Raises:
        LogError: not these three files, or a field that they do not have.
    """
    files = {_side(path): path for path in paths}
    if len(files) != len(paths) or len(files) != len(KEYS) + 1:
        raise LogError("kuairand wants three files: impressions, users, videos")
    impressions, context = files["context"], featured(spec, "context")
    if late := {field.name for field in context} - {*CONTEXT}:
        raise LogError(f"context fields can be {', '.join(CONTEXT)}, not {', '.join(sorted(late))}: see docs/ingest.md")
    refuse_columns(impressions, missing={"time_ms", "is_click", "tab"} - _names(impressions))
    users, videos = (_features(files[side], side, featured(spec, side)) for side in ("user", "item"))

    known = Context()

    def parse(where: str, row: Row) -> Logged:
        user, video = row["user_id"], row["video_id"]
        own = {"time": row["time_ms"], "user_id": user, "item_id": video, "click": row["is_click"]}
        line = msgspec.convert(own, Line)
        return line.logged(where, users.get(user, {}), _known(known.of(row), context), videos.get(video, {}))

    yield from parsed(impressions, _distinct(impressions, skipped), parse, skipped)


def count_impressions(paths: Sequence[Path]) -> int:
    """About how many there are: their file has the most rows."""
    return max(int(parquet.read_metadata(path).num_rows) for path in paths)


def _side(path: Path) -> Side:
    """Which of the three it is: "context" for the impressions."""
    user, item = (key in _names(path) for key in KEYS.values())
    if user and item:
        return "context"
    if not user and not item:
        raise LogError(f"{path.name}: has neither {' nor '.join(KEYS.values())}: not of KuaiRand")
    return "user" if user else "item"


def _names(path: Path) -> set[str]:
    try:
        return set(parquet.read_schema(path).names)
    except pyarrow.ArrowException as error:
        raise LogError(f"{path.name}: {error}") from None


def _features(path: Path, side: str, fields: Sequence[Field]) -> dict[int, Row]:
    """id -> the features that `fields` name."""
    refuse_columns(path, missing={field.name for field in fields} - _names(path))
    table = parquet.read_table(path, columns=[KEYS[side], *(field.name for field in fields)])
    return {row[KEYS[side]]: _known(row, fields) for row in table.to_pylist()}


def _distinct(path: Path, skipped: Skipped) -> Iterator[tuple[int, Row]]:
    """Numbered rows without those that repeat another of their millisecond in every column."""
    now_ms, seen, number = None, set[Any](), 0
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=10_000):
        names, columns = batch.schema.names, [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            number += 1
            row = dict(zip(names, values, strict=True))
            if row["time_ms"] != now_ms:
                now_ms, seen = row["time_ms"], set()
            if values in seen:
                skipped.add("duplicate", f"{path.name}:{number}")
            else:
                seen.add(values)
                yield number, row


def _known(row: Row, fields: Sequence[Field]) -> Row:
    """The features that are there, as values of their field: null and NaN are not."""
    return {
        field.name: _value(field, row[field.name]) for field in fields if row[field.name] == row[field.name] is not None
    }


def _value(field: Field, value: Any) -> Any:
    if field.kind == "multi_hot":
        return str(value).split(",")
    if field.kind == "categorical" and isinstance(value, float):
        return int(value)  # a column of whole numbers became one of fractions where some are missing
    return value
