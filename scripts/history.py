"""Historical logs as impressions: the csv and jsonl formats (docs/ingest.md), and what all formats share.

A file that cannot be meant for this spec is an error before its first impression; a line that cannot be used is counted
with its reason, and reading goes on.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from models.features import Features
from models.spec import FeatureSpec, Field
from service.events import Id

T = TypeVar("T")

MULTI_HOT_SEPARATOR = ";"  # inside a csv cell


class LogError(ValueError):
    """A file as a whole cannot be used."""


class Logged(NamedTuple):
    """One impression of a log. Features are raw values, as a request would bring them."""

    where: str  # "file:line", for whoever must find it
    time_ms: int  # Unix
    user_id: str
    item_id: str
    click: bool
    p_click: float  # what the logging system predicted; 0 where the log does not say
    user: Features
    context: Features
    item: Features


class Skipped:
    """Lines that were not used: how many for each reason, and the first of them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, reason: str, where: str, detail: str = "") -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, f"{where}: {detail}" if detail else where)


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The documented columns, as every format is checked against them."""

    time: Annotated[int, Meta(ge=1)] | Annotated[datetime, Meta(tz=True)]  # Unix milliseconds, or RFC 3339 with a zone
    user_id: Id | int
    item_id: Id | int
    click: bool | Annotated[int, Meta(ge=0, le=1)]
    p_click: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def logged(self, where: str, user: Features, context: Features, item: Features) -> Logged:
        time_ms = self.time if isinstance(self.time, int) else round(self.time.timestamp() * 1000)
        ids = str(self.user_id), str(self.item_id)
        return Logged(where, time_ms, *ids, bool(self.click), self.p_click, user, context, item)


class _JsonLine(Line, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, with its features."""

    user: dict[str, Any] = {}
    context: dict[str, Any] = {}
    item: dict[str, Any] = {}


_OWN_COLUMNS = Line.__struct_fields__
_REQUIRED_COLUMNS = tuple(name for name in _OWN_COLUMNS if name != "p_click")
_json_line = msgspec.json.Decoder(_JsonLine)


def read_jsonl(path: Path, spec: FeatureSpec, skipped: Skipped) -> Iterator[Logged]:
    """One JSON object a line, its features in the objects `user`, `context` and `item`.

    Raises:
        LogError: the first readable line has a feature that the spec does not have.
    """

    def parse(where: str, text: bytes) -> Logged:
        line = _json_line.decode(text)
        return line.logged(where, line.user, line.context, line.item)

    for number, logged in enumerate(parsed(path, _lines(path), parse, skipped)):
        if number == 0:
            known = {f"{field.side}.{field.name}" for field in featured(spec)}
            sides = {"user": logged.user, "context": logged.context, "item": logged.item}
            found = {f"{side}.{name}" for side, features in sides.items() for name in features}
            refuse_columns(path, unknown=found - known)
        yield logged


def read_csv(path: Path, spec: FeatureSpec, skipped: Skipped) -> Iterator[Logged]:
    """A header, then one impression a line: no line breaks inside a cell. An empty cell is a missing value.

    Raises:
        LogError: the header does not hold exactly our columns and the spec's fields.
    """
    lines = _lines(path)
    try:
        header = _cells(next(lines, (1, b""))[1])
    except (ValueError, csv.Error) as error:
        raise LogError(f"{path.name}: {error}") from None
    fields = _columns(path, header, spec)
    yield from parsed(path, lines, lambda where, text: _convert(where, header, _cells(text), fields), skipped)


def count_lines(path: Path) -> int:
    """About how many impressions a csv or jsonl file has."""
    return sum(1 for _ in _lines(path))


def featured(spec: FeatureSpec, side: str | None = None) -> list[Field]:
    """The fields of a side, or of all, whose values are features: the others are ids, which a log has anyway."""
    return [field for field in spec.fields if field.source == "features" and side in (None, field.side)]


def parsed(
    path: Path, lines: Iterable[tuple[int, T]], parse: Callable[[str, T], Logged], skipped: Skipped
) -> Iterator[Logged]:
    """The numbered lines that can be parsed; the others are counted."""
    name = path.name
    for number, line in lines:
        where = f"{name}:{number}"
        try:
            logged = parse(where, line)
        except (ValueError, csv.Error) as error:  # of msgspec, float() and UTF-8, too
            column = re.search(r"`\$\.(\w+)", str(error))
            skipped.add(f"bad_{column[1]}" if column else "bad_line", where, str(error))
        else:
            yield logged


def refuse_columns(path: Path, *, unknown: Iterable[str] = (), missing: Iterable[str] = ()) -> None:
    """Raises LogError where there are any."""
    if unknown := sorted(unknown):
        raise LogError(f"{path.name}: not in the feature spec: {', '.join(unknown)}")
    if missing := sorted(missing):
        raise LogError(f"{path.name}: no column {', '.join(missing)} (an empty one would say: value missing)")


def _columns(path: Path, header: Sequence[str], spec: FeatureSpec) -> dict[str, Field]:
    """Column -> its field. A column is named as its field, or `side.name` where that name alone would be ambiguous."""
    fields = featured(spec)
    taken = Counter([*_OWN_COLUMNS, *(field.name for field in fields)])
    columns = {field.name if taken[field.name] == 1 else f"{field.side}.{field.name}": field for field in fields}
    found = set(header)
    if len(found) != len(header):
        raise LogError(f"{path.name}: the header names a column twice")
    refuse_columns(path, unknown=found - {*columns, *_OWN_COLUMNS}, missing={*columns, *_REQUIRED_COLUMNS} - found)
    return columns


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])


def _convert(where: str, header: Sequence[str], cells: Sequence[str], fields: Mapping[str, Field]) -> Logged:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
    own: dict[str, str] = {}
    features: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "item": {}}
    for column, text in zip(header, cells, strict=True):
        field = fields.get(column)
        if text == "":
            continue
        if field is None:
            own[column] = text
        elif field.kind == "multi_hot":
            features[field.side][field.name] = text.split(MULTI_HOT_SEPARATOR)
        else:
            features[field.side][field.name] = float(text) if field.kind == "numeric" else text
    return msgspec.convert(own, Line, strict=False).logged(where, **features)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1, blank ones left out; .gz is unpacked."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise LogError(f"{path.name}: {error}") from None
