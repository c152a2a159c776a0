"""Lines of the Yahoo! R6B log ("ydata-fp-td-clicks-v2_0"): one visit each, its article displayed uniformly at random.

    1317513291 id-560620 0 |user 1 9 11 13 23 |id-552077 |id-555224 |id-560620

are the Unix time in seconds, the article displayed, 1 if it was clicked, the user's active binary features, and the
pool. Real files have double and trailing blanks, features in any order, and now and then a broken line: what cannot be
used is skipped and counted by its reason, and stops nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_FEATURES = range(1, 137)
_ARTICLE = "id-"
_REMEMBERED = 4096  # pools and users in a row are much alike, and parsing them is most of the work


class Event(NamedTuple):
    """One visit of the log."""

    time_s: int  # Unix
    displayed: int  # index of the article in `candidates`
    click: int  # 0 or 1
    features: tuple[int, ...] | tuple[str, ...]  # active ones, in the order of the line
    candidates: tuple[str, ...]  # distinct, such as "id-560620"


@dataclass(kw_only=True)
class Tally:
    """What a reading met. Counts go up while `events` runs."""

    events: int = 0
    unsorted: int = 0  # events earlier than the one before them; used all the same
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> lines


class Unusable(Exception):
    """A line that is skipped; its text is the reason."""


def events(lines: Iterable[str], tally: Tally) -> Iterator[Event]:
    """The usable visits, in the order of the lines.

    Lines are skipped for: empty_line, incomplete_line, bad_time, bad_click, bad_article, missing_user, bad_feature,
    empty_pool, duplicate_candidate, displayed_not_in_pool.
    """
    return usable(_parse, lines, tally)


def usable(parse: Callable[[str], Event], lines: Iterable[str], tally: Tally) -> Iterator[Event]:
    """The lines of a log of any format, parsed, without those that are Unusable; all are counted."""
    latest_s = 0
    for line in lines:
        try:
            event = parse(line)
        except Unusable as reason:
            tally.skipped[str(reason)] += 1
            continue
        tally.events += 1
        tally.unsorted += event.time_s < latest_s
        latest_s = event.time_s
        yield event


def _parse(line: str) -> Event:
    visit, *sections = line.split("|", 2)
    fields = visit.split()
    if not fields and not sections:
        raise Unusable("empty_line")
    if len(fields) != 3 or not sections:
        raise Unusable("incomplete_line")
    time_s, article, click = fields
    if not time_s.isdecimal():
        raise Unusable("bad_time")
    if click not in ("0", "1"):
        raise Unusable("bad_click")
    features = _user(sections[0])
    candidates = _pool(sections[1] if len(sections) > 1 else "")
    try:
        displayed = candidates.index(_article(article))
    except ValueError:
        raise Unusable("displayed_not_in_pool") from None
    return Event(int(time_s), displayed, int(click), features, candidates)


@lru_cache(_REMEMBERED)
def _user(section: str) -> tuple[int, ...]:
    """ "user 1 9 11" -> (1, 9, 11). A user without any feature is possible."""
    name, *features = section.split() or [""]
    if name != "user":
        raise Unusable("missing_user")
    numbers = tuple(int(one) if one.isdecimal() else 0 for one in features)
    if any(one not in _FEATURES for one in numbers) or len(set(numbers)) != len(numbers):
        raise Unusable("bad_feature")
    return numbers


@lru_cache(_REMEMBERED)
def _pool(sections: str) -> tuple[str, ...]:
    """ "id-1 |id-2 |id-3" -> ("id-1", "id-2", "id-3")."""
    if not sections.strip():
        raise Unusable("empty_pool")
    candidates = tuple(_article(section.strip()) for section in sections.split("|"))
    if len(set(candidates)) != len(candidates):
        raise Unusable("duplicate_candidate")
    return candidates


def _article(text: str) -> str:
    if not (text.startswith(_ARTICLE) and text[len(_ARTICLE) :].isdecimal()):
        raise Unusable("bad_article")
    return text
