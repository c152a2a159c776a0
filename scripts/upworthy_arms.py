"""Arms of the Upworthy Research Archive [1], a csv file with a row for each.

References:
    [1] Matias et al. 2021, "The Upworthy Research Archive, a time series of experiments in U.S. media", Scientific Data
"""

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]

_FIRST = 100_000  # of a log's ids


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

    def __post_init__(self) -> None:
        if self.clicks > self.impressions:
            raise ValueError(f"{self.clicks} clicks on {self.impressions} impressions")

    @property
    def id(self) -> str:
        return f"id-{_FIRST + self.item_id}"

    @property
    def counts(self) -> dict[str, int]:
        return {"impressions": self.impressions, "clicks": self.clicks}


def archive(lines: Iterable[str]) -> list[Arm]:
    """Of a csv file.

    Raises:
        ValueError: with the line, a column is missing or holds what it should not, more clicks than impressions, or an
            item_id for the second time.
    """
    reader, found = csv.DictReader(lines), dict[int, Arm]()
    try:
        if missing := [name for name in Arm.__struct_fields__ if name not in (reader.fieldnames or ())]:
            raise ValueError(f"no column {', '.join(missing)}")
        for row in reader:
            arm = msgspec.convert(row, Arm, strict=False)
            if found.setdefault(arm.item_id, arm) is not arm:
                raise ValueError(f"item_id {arm.item_id} for the second time")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"after line {reader.line_num}: {error}") from None
    except ValueError as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    return list(found.values())


def read_arms(path: Path) -> list[Arm]:
    """Of a packed file. Raises ValueError like `archive`."""
    with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
        return archive(file)
