from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.r6b import Event, Tally, events

FEATURES = (1, 9, 11, 13, 23, 16, 18, 17, 19, 15, 43, 14, 39, 30, 66, 50, 27, 104, 20)
#: The data set's own example line shows the first two and the last of its 26 candidates; the others are made up.
POOL = ("id-552077", "id-555224", *(f"id-{560600 + number}" for number in range(20, 43)), "id-565822")
EXAMPLE = f"1317513291 id-560620 0 |user {' '.join(map(str, FEATURES))} {' '.join(f'|{one}' for one in POOL)}\n"


def read(*lines: str) -> tuple[list[Event], Tally]:
    tally = Tally()
    return list(events(lines, tally)), tally


def test_the_official_example_line() -> None:
    (event,), tally = read(EXAMPLE)
    assert event.time_s == 1317513291
    assert event.candidates[event.displayed] == "id-560620"
    assert event.click == 0
    assert event.features == FEATURES
    assert len(event.features) == 19
    assert event.candidates == POOL
    assert len(event.candidates) == 26
    assert tally == Tally(events=1)


def test_blanks_anywhere_between_the_fields_change_nothing() -> None:
    (event,), _ = read("  1317513291   id-2 1  |user  1  9\t11   |id-1  |id-2   |id-3   \r\n")
    assert event == Event(1317513291, 1, 1, (1, 9, 11), ("id-1", "id-2", "id-3"))


def test_a_user_without_features_is_a_visit() -> None:
    (event,), tally = read("1 id-2 0 |user |id-1 |id-2")
    assert event.features == ()
    assert tally.skipped == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty_line"),
        ("  \n", "empty_line"),
        ("1317513291 id-1 0", "incomplete_line"),
        ("1317513291 id-1 |user 1 |id-1", "incomplete_line"),
        ("1317513291 id-1 0 7 |user 1 |id-1", "incomplete_line"),
        ("|user 1 |id-1", "incomplete_line"),
        ("yesterday id-1 0 |user 1 |id-1", "bad_time"),
        ("-5 id-1 0 |user 1 |id-1", "bad_time"),
        ("1317513291 id-1 2 |user 1 |id-1", "bad_click"),
        ("1317513291 1 0 |user 1 |id-1", "bad_article"),
        ("1317513291 id-1 0 |user 1 |id-1 |id-", "bad_article"),
        ("1317513291 id-1 0 |user 1 |id-1 |id-2 7", "bad_article"),
        ("1317513291 id-1 0 |user 1 |id-1 |", "bad_article"),
        ("1317513291 id-1 0 |id-1 |id-2", "missing_user"),
        ("1317513291 id-1 0 | |id-1 |id-2", "missing_user"),
        ("1317513291 id-1 0 |user 1 137 |id-1", "bad_feature"),
        ("1317513291 id-1 0 |user 0 |id-1", "bad_feature"),
        ("1317513291 id-1 0 |user 1 x |id-1", "bad_feature"),
        ("1317513291 id-1 0 |user 1 5 5 |id-1", "bad_feature"),
        ("1317513291 id-1 0 |user 1", "empty_pool"),
        ("1317513291 id-1 0 |user 1 | ", "empty_pool"),
        ("1317513291 id-1 0 |user 1 |id-1 |id-1", "duplicate_candidate"),
        ("1317513291 id-3 0 |user 1 |id-1 |id-2", "displayed_not_in_pool"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_by_its_reason(line: str, reason: str) -> None:
    found, tally = read(EXAMPLE, line, EXAMPLE)
    assert len(found) == tally.events == 2
    assert tally.skipped == {reason: 1}


def test_visits_out_of_order_are_used_and_counted() -> None:
    line = "{} id-1 0 |user 1 |id-1 |id-2"
    found, tally = read(*(line.format(time_s) for time_s in (10, 12, 11, 11, 13, 9)))
    assert [event.time_s for event in found] == [10, 12, 11, 11, 13, 9]
    assert tally.unsorted == 2


def test_reading_is_lazy() -> None:
    tally = Tally()
    stream = events(iter([EXAMPLE, "", EXAMPLE]), tally)
    assert tally == Tally()
    next(stream)
    assert tally == Tally(events=1)
    next(stream)
    assert tally == Tally(events=2, skipped=Counter(empty_line=1))


@given(st.lists(st.text(alphabet="0123456789id-|user \t\n", max_size=60)))
def test_no_line_is_lost_and_no_text_breaks_the_reader(lines: list[str]) -> None:
    found, tally = read(*lines)
    assert len(found) + tally.skipped.total() == len(lines)
    assert len(found) == tally.events
    for event in found:
        assert 0 <= event.displayed < len(event.candidates)
