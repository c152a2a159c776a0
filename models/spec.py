"""The feature spec: which fields the model sees, and where each stands in the encoded arrays. numpy only.

A spec is a TOML text:

    [[fields]]
    name = "country"        # the key under `features` of its side
    side = "user"           # user | context | item
    kind = "categorical"    # categorical | multi_hot | numeric
    buckets = 1000          # values are hashed into so many rows
    width = 8               # embedding width

Every kind is a bag of weighted rows, so that the network knows only one operation: a categorical value is one row of
weight 1, a multi-hot value several rows, a number one row weighted by the number. Row 0 of a field stands for a missing
value and is learned like any other.
"""

import dataclasses
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import msgspec
import xxhash

Side = Literal["user", "context", "item"]
Kind = Literal["categorical", "multi_hot", "numeric"]

_SIDES = ("user", "context", "item")
_KINDS = ("categorical", "multi_hot", "numeric")

_MOST_ROWS = 2**31 - 1  # rows are int32
_NO_NAME = re.compile(r"[\"\\\x00-\x1f]")  # what JSON would have to escape


class SpecError(ValueError):
    """The feature spec itself is wrong."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input of the model.

    Args:
        name: key under `features`, unique within its side.
        side: whose feature it is. User and context are encoded once a request, item once a candidate.
        kind: how a value becomes rows.
        width: embedding width.
        buckets: hash rows of a categorical or multi-hot field.
        max_values: most values of a multi-hot field; more is an error.
        pooling: of a multi-hot field: "mean" or "sum" of its rows.
        source: "features", or "id" to take the user's or the candidate's id as the value.
        mean, std: a number x enters as (x - mean) / std, clipped to [-10, 10].
        group: items that share this value, a campaign or a story, share more than the model knows: item_posterior keeps
            what it is. Of one categorical feature of items. Changes no encoding.
    """

    name: str
    side: Side
    kind: Kind
    width: int = 8
    buckets: int = 0
    max_values: int = 1
    pooling: Literal["mean", "sum"] = "mean"
    source: Literal["features", "id"] = "features"
    mean: float = 0.0
    std: float = 1.0
    group: bool = dataclasses.field(default=False, repr=False)  # not in the hash

    @property
    def slots(self) -> int:
        return self.max_values if self.kind == "multi_hot" else 1

    @property
    def rows(self) -> int:
        """Table rows: one for missing, then the hash buckets, or one direction for a number."""
        return 2 if self.kind == "numeric" else 1 + self.buckets

    def check(self) -> None:
        where = f"field {self.name!r}"
        _check_name(self.name, where)
        if self.side not in _SIDES:
            raise SpecError(f"{where}: side must be one of {', '.join(_SIDES)}, not {self.side!r}")
        if self.kind == "sequence":  # type: ignore[comparison-overlap]  # reserved: sequences need their own network
            raise SpecError(f"{where}: sequence fields are not supported yet")
        if self.kind not in _KINDS:
            raise SpecError(f"{where}: kind must be one of {', '.join(_KINDS)}, not {self.kind!r}")
        if self.kind != "numeric" and self.buckets < 1:
            raise SpecError(f"{where}: a {self.kind} field needs buckets >= 1")
        if self.width < 1 or self.max_values < 1 or not (0.0 < self.std < math.inf and math.isfinite(self.mean)):
            raise SpecError(f"{where}: width and max_values must be at least 1, mean and std finite, and std above 0")
        if self.pooling not in ("mean", "sum"):
            raise SpecError(f"{where}: pooling must be mean or sum, not {self.pooling!r}")
        if self.source not in ("features", "id") or (self.source == "id" and self.side == "context"):
            raise SpecError(f"{where}: source must be features, or id for a user or item field")


def _check_name(name: str, where: str) -> None:
    if not name or _NO_NAME.search(name):
        raise SpecError(f"{where}: a name must not be empty, nor hold a quotation mark, a backslash or a control")


def _check_groups(fields: Sequence[Field]) -> None:
    if len(fields) > 1:
        raise SpecError(f"only one field can be the group, not {' and '.join(repr(field.name) for field in fields)}")
    if any((field.side, field.kind, field.source) != ("item", "categorical", "features") for field in fields):
        raise SpecError(f"field {fields[0].name!r}: the group must be a categorical feature of items")


class Column(NamedTuple):
    """A field's place in the encoded arrays and in its table."""

    field: Field
    start: int  # first slot
    offset: int  # first table row
    seed: int  # of the value hash


class Table(NamedTuple):
    """One embedding matrix: all fields of one side and one width. Its slots stand next to each other."""

    name: str
    rows: int
    width: int
    columns: tuple[Column, ...]

    @property
    def slots(self) -> slice:
        """Where they stand among those of the side."""
        first, last = self.columns[0], self.columns[-1]
        return slice(first.start, last.start + last.field.slots)


class Layout(NamedTuple):
    """How one side (context holds user and context fields) is laid out."""

    tables: tuple[Table, ...]
    slots: int  # K
    width: int  # this side's part of D

    @property
    def columns(self) -> list[Column]:
        """Of all tables, in the order of their slots."""
        return [column for table in self.tables for column in table.columns]


def _layout(name: str, fields: Sequence[Field]) -> Layout:
    tables, start = [], 0
    for width in sorted({field.width for field in fields}):
        # Categorical fields first: their embedding is the gathered rows as they stand. Then the other single slots.
        members = [field for field in fields if field.width == width]
        members.sort(key=lambda field: (field.kind != "categorical", field.slots))
        columns, offset = [], 0
        for field in members:
            seed = xxhash.xxh3_64_intdigest(f"{field.side}.{field.name}".encode())
            columns.append(Column(field, start, offset, seed))
            start += field.slots
            offset += field.rows
        tables.append(Table(f"{name}_{width}", offset, width, tuple(columns)))
    return Layout(tuple(tables), start, sum(field.width for field in fields))


@dataclass(frozen=True)
class FeatureSpec:
    """The model's inputs. Equal specs encode equally and give equal hashes."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        seen = set()
        for field in self.fields:
            field.check()
            if (field.side, field.name) in seen:
                raise SpecError(f"field {field.name!r} is defined twice on side {field.side}")
            seen.add((field.side, field.name))
        if not any(field.side == "item" for field in self.fields):
            raise SpecError("a spec needs at least one item field: the gate looks at nothing else")
        if sum(field.rows for field in self.fields) > _MOST_ROWS:
            raise SpecError(f"the fields have more than {_MOST_ROWS} rows in all: lower their buckets")
        _check_groups([field for field in self.fields if field.group])

    @cached_property
    def context(self) -> Layout:
        """Layout of the user and context fields."""
        return _layout("context", [field for field in self.fields if field.side != "item"])

    @cached_property
    def item(self) -> Layout:
        """Layout of the item fields."""
        return _layout("item", [field for field in self.fields if field.side == "item"])

    @classmethod
    @lru_cache(maxsize=8)  # a version comes every second, with the same text
    def from_toml(cls, text: str) -> "FeatureSpec":
        """Raises SpecError, naming the field, on anything but a correct spec."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"not TOML: {error}") from None
        if set(document) != {"fields"} or not isinstance(document["fields"], list):
            raise SpecError(f"expected [[fields]] tables and nothing else, found {sorted(document)}")
        known = {field.name for field in fields(Field)}
        parsed = []
        for number, table in enumerate(document["fields"]):
            unknown = set(table) - known
            if unknown:
                raise SpecError(f"fields[{number}]: unknown keys {sorted(unknown)}; known are {sorted(known)}")
            try:
                parsed.append(msgspec.convert(table, Field))
            except msgspec.ValidationError as error:
                raise SpecError(f"fields[{number}] ({table.get('name', 'unnamed')}): {error}") from None
        return cls(tuple(parsed))

    @property
    def hash(self) -> str:
        """16 hex digits that change with anything that changes the encoding."""
        return xxhash.xxh3_64_hexdigest(repr(self.fields).encode())
