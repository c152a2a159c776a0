"""The join against a reference that knows no queue: it looks at everything, every time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import Event, Served, encode
from service.streams import Entry
from service.training.join import REMEMBERED_MS, UNCLICKED, Join, Mode

WINDOW_MS = 10
Record = tuple[int, Served | Event | str]  # (time, message); a str is the id of a request to ignore
Outcome = tuple[list[tuple[str, str, int, int | None]], list[tuple[str, str]], Counter[str]]


def served(request_id: str, items: str, time_ms: int = 10**12) -> Served:  # a clock that is ahead does no harm
    return Served(
        request_id=request_id,
        time_ms=time_ms,
        lane="default",
        strategy="greedy",
        version=0,
        lambda_=0.0,
        seed=0,
        spec_hash="",
        bucket=None,
        context_index=b"",
        context_weight=b"",
        item_ids=list(items),
        item_index=b"",
        item_weight=b"",
        p_click=[0.1] * len(items),
        score=[0.1] * len(items),
        explored=[False] * len(items),
        impressions=[0] * len(items),
        propensity=None,
    )


def click(event_id: str, request_id: str, item_id: str) -> Event:
    return Event(id=event_id, type="click", request_id=request_id, item_id=item_id)


def impression(event_id: str, request_id: str, item_id: str) -> Event:
    return Event(id=event_id, type="impression", request_id=request_id, item_id=item_id)


def join(mode: Mode = "served", max_pending: int = 1000) -> Join:
    return Join(window_ms=WINDOW_MS, mode=mode, max_pending=max_pending)


def feed(one: Join, records: list[Record], first: int = 0) -> Outcome:
    closed, refused, counts = [], [], Counter()
    for number, (time_ms, message) in enumerate(records, first):
        payload = encode(message) if isinstance(message, Served) else b""
        entry = Entry("stream", f"{time_ms}-{number}", payload)
        if isinstance(message, str):
            one.ignore(entry, message)
        elif isinstance(message, Served):
            one.serve(entry, message)
        else:
            one.feedback(entry, message)
    joined = one.take(one.now_ms)
    closed = [
        (
            window.served.request_id,
            window.served.item_ids[row],
            window.time_ms,
            None if click_ms == UNCLICKED else click_ms,
        )
        for window in joined.closed
        for row, click_ms in zip(window.rows, window.click_ms, strict=True)
    ]
    refused = [(entry.position, error.code) for entry, error in joined.refused]
    counts = joined.counts
    return closed, refused, counts


def at_the_end(records: list[Record]) -> list[Record]:
    """The same, and an entry so late that everything closes."""
    return [*records, (records[-1][0] + REMEMBERED_MS + 10 * WINDOW_MS if records else 0, "the end")]


def record(code: int) -> tuple[int, Served | Event | str]:
    """One of very many (wait, message) from a number: a fraction of the cost of drawing its parts one by one."""

    def pick(choices):
        nonlocal code
        code, index = divmod(code, len(choices))
        return choices[index]

    request_id = pick("rst")
    make = pick([served, served, click, click, click, click, impression, impression, impression, str])
    wait_ms = pick([0, 0, 0, 1, 1, 2, 3, 10, 11, 25, REMEMBERED_MS - 2 * WINDOW_MS])
    if make is served:
        return wait_ms, served(request_id, pick(["a", "ab", "abc"]), time_ms=-pick([0, 0, 0, 9, 10, 11]))
    if make is str:
        return wait_ms, pick([request_id, "u"])
    item_id, event_id = pick("aabbcx"), pick(range(20))
    return wait_ms, make(str(event_id), request_id, item_id)


def dated(codes: list[int]) -> list[Record]:
    time_ms, records = 0, []
    for wait_ms, message in map(record, codes):
        time_ms += wait_ms
        if isinstance(message, Served):
            message = msgspec.structs.replace(message, time_ms=max(time_ms + message.time_ms, 0))
        records.append((time_ms, message))
    return at_the_end(records)


histories = st.lists(st.integers(0, 2**20), max_size=60).map(dated)
modes = st.sampled_from(["served", "events"])
bounds = st.sampled_from([3, 5, 12, 1000])


@settings(max_examples=400)
@given(histories, modes, bounds)
def test_the_join_is_what_the_reference_says(
    reference: Callable[..., Any], records: list[Record], mode: Mode, max_pending: int
) -> None:
    closed, refused, counts = feed(join(mode, max_pending), records)
    expected_closed, expected_refused, expected_counts = reference(WINDOW_MS, mode, max_pending).feed(records)
    assert closed == expected_closed
    assert sorted(refused) == sorted(expected_refused)
    assert counts == expected_counts


@given(histories, modes, bounds, st.floats(0, 1))
def test_a_restored_join_goes_on_as_before(
    bits, records: list[Record], mode: Mode, max_pending: int, share: float
) -> None:
    cut = round(share * len(records))
    whole, first = join(mode, max_pending), join(mode, max_pending)
    expected = feed(whole, records)
    before = feed(first, records[:cut])
    second = join(mode, max_pending)
    second.restore(first.state())
    assert (second.pending, bits(second.state())) == (first.pending, bits(first.state()))
    after = feed(second, records[cut:], cut)
    assert (before[0] + after[0], before[1] + after[1], before[2] + after[2]) == expected
    assert bits(second.state()) == bits(whole.state())


@given(histories, modes)
def test_everything_ends_and_nothing_is_lost(records: list[Record], mode: Mode) -> None:
    """Each event has exactly one result, each impression closes exactly once, and memory empties."""
    one = join(mode)
    closed, _, counts = feed(one, records)
    assert one.pending == 0
    feedback = sum(isinstance(message, Event) for _, message in records)
    repeated = counts.total() - feedback  # served twice, or late
    assert 0 <= repeated <= sum(isinstance(message, Served) for _, message in records)
    assert [item[2] for item in closed] == sorted(item[2] for item in closed)
    assert sum(array.nbytes for array in one.state().values()) < 60  # only the end marker is left


def test_an_unclicked_and_a_clicked_item_close_together_after_the_window() -> None:
    one = join()
    assert feed(one, [(100, served("r", "ab")), (105, click("e", "r", "b"))])[0] == []
    assert feed(one, [(110, "x")])[0] == []  # at its very end the window is still open
    assert feed(one, [(111, "y")])[0] == [("r", "a", 100, None), ("r", "b", 100, 105)]


@pytest.mark.parametrize(("time_ms", "click_ms", "result"), [(110, 110, "matched"), (111, None, "late")])
def test_the_last_moment_for_a_click(time_ms: int, click_ms: int | None, result: str) -> None:
    records = [(100, served("r", "a")), (time_ms, click("e", "r", "a"))]
    closed, _, counts = feed(join(), at_the_end(records))
    assert closed == [("r", "a", 100, click_ms)]
    assert counts == {result: 1}


def test_a_click_before_its_impression_waits_for_it() -> None:
    records = [(95, click("e", "r", "a")), (100, served("r", "a"))]
    closed, refused, counts = feed(join(), at_the_end(records))
    assert (closed, refused, counts) == ([("r", "a", 100, 95)], [], {"matched": 1})


def test_a_click_on_nothing_is_refused_after_a_window() -> None:
    one = join()
    assert feed(one, [(95, click("e", "r", "a")), (105, "x")])[1] == []
    assert feed(one, [(106, "y")])[1] == [("95-0", "unknown_request")]


def test_in_mode_events_only_confirmed_items_are_examples_and_each_has_its_own_window() -> None:
    records = [
        (100, served("r", "abc")),
        (101, click("1", "r", "b")),  # comes before its impression
        (104, impression("2", "r", "b")),
        (108, impression("3", "r", "a")),
        (111, impression("4", "r", "c")),  # the wait for impressions is over
        (118, click("5", "r", "a")),  # but this one's window is not
    ]
    closed, refused, counts = feed(join("events"), at_the_end(records))
    assert closed == [("r", "b", 104, 101), ("r", "a", 108, 118)]
    assert refused == []
    assert counts == {"matched": 4, "late": 1}


def test_a_click_and_an_impression_that_both_come_before_the_request() -> None:
    records = [(1, click("1", "r", "a")), (2, impression("2", "r", "a")), (3, served("r", "a"))]
    closed, refused, counts = feed(join("events"), at_the_end(records))
    assert (closed, refused, counts) == ([("r", "a", 3, 1)], [], {"matched": 2})


def test_the_oldest_gives_way_when_too_much_waits() -> None:
    one = join(max_pending=4)
    closed, _, counts = feed(one, [(1, served("r1", "ab")), (2, click("e", "r1", "b")), (3, served("r2", "abc"))])
    assert closed == [("r1", "a", 1, None), ("r1", "b", 1, 2)]
    assert counts == {"matched": 1, "evicted": 2}
    assert one.pending == 3


def test_feedback_for_another_lane_is_ignored_whenever_it_comes() -> None:
    records = [(1, click("1", "r", "a")), (2, "r"), (3, click("2", "r", "a"))]
    closed, refused, counts = feed(join(), at_the_end(records))
    assert (closed, refused, counts) == ([], [], {"ignored": 2})


def test_other_lanes_take_no_more_memory_than_ours_and_push_out_nothing() -> None:
    one = join(max_pending=3)
    flood = [(2, f"other {number}") for number in range(1_000)]
    closed, _, counts = feed(one, at_the_end([(1, served("r", "a")), *flood, (2, click("1", "r", "a"))]))
    assert (closed, counts) == ([("r", "a", 1, 2)], {"matched": 1})
    feed(one, [(2, served("s", "a")), *flood])
    assert len(one.state()["ignored.time_ms"]) <= 3
