"""Whatever way records come to the log: each request is learned once, and none as unclicked whose click went by."""

from collections import Counter
from typing import Any

import pytest

from service.events import Event, Served
from service.training import memory
from service.training.join import REMEMBERED_MS, Join
from service.training.memory import Joined, Request

WINDOW_MS = 1_500
Record = tuple[int, Served | Event | str]  # (time, message); a str is the id of another lane's request


@pytest.fixture
def join() -> Join:
    return Join(window_ms=WINDOW_MS, mode="served", max_pending=1_000)


def click(request_id: str, number: int = 1) -> Event:
    return Event(id=f"click {number} on {request_id}", type="click", request_id=request_id, item_id="a")


def learned(world: Any, join: Join, records: list[Record]) -> tuple[dict[str, list[int]], Counter[str]]:
    """(request id -> when its items were clicked, counts) of these, when all windows have closed."""
    for time_ms, message in records:
        entry = world.entry(b"" if isinstance(message, str) else message, time_ms)
        if isinstance(message, str):
            join.ignore(entry, message)
        elif isinstance(message, Served):
            join.serve(entry, message)
        else:
            join.feedback(entry, message)
    found: Joined = join.take(records[-1][0] + 2 * WINDOW_MS)
    assert len(found.closed) == len({one.served.request_id for one in found.closed})
    return {one.served.request_id: one.click_ms for one in found.closed}, found.counts


def test_an_outage_of_a_scorers_link_doubles_nothing_and_makes_no_click_a_negative(world, join: Join) -> None:
    """The reply to the first record was lost; the second waited, and its click came through another scorer."""
    first, second = (world.served(f"r{number}", "a", time_ms=10_000 + number) for number in range(2))
    records: list[Record] = [(10_050, first), (10_600, click("r1")), (14_000, first), (14_000, second)]
    closed, counts = learned(world, join, [*records, (14_001, click("r0")), (14_002, click("r1", 2))])
    assert closed == {"r0": [memory.UNCLICKED]}
    assert counts == {"duplicate": 1, "unknown_request": 1, "delayed": 1, "late": 2}


def test_a_click_that_came_before_its_delayed_record_is_late(world, join: Join) -> None:
    records: list[Record] = [
        (11_000, click("r")),
        (11_500, world.served("r", "a", time_ms=9_000)),
        (11_600, click("r", 2)),
    ]
    assert learned(world, join, records) == ({}, {"delayed": 1, "late": 2})


@pytest.mark.parametrize(("lag_ms", "result"), [(WINDOW_MS, "matched"), (WINDOW_MS + 1, "late")])
def test_the_last_moment_for_a_record(world, join: Join, lag_ms: int, result: str) -> None:
    records: list[Record] = [(9_000 + lag_ms, world.served("r", "a", time_ms=9_000)), (11_000, click("r"))]
    assert learned(world, join, records)[1][result] == 1


@pytest.mark.parametrize(("age_ms", "counts"), [(REMEMBERED_MS, {"duplicate": 1}), (REMEMBERED_MS + 1, {})])
def test_a_request_is_known_for_an_hour_though_a_clock_is_ahead(
    world, join: Join, bits, age_ms: int, counts: dict[str, int]
) -> None:
    served = world.served("r", "a", time_ms=2 * REMEMBERED_MS)
    assert learned(world, join, [(1, served)]) == ({"r": [memory.UNCLICKED]}, {})
    again = Join(window_ms=WINDOW_MS, mode="served", max_pending=1_000)
    again.restore(join.state())
    assert bits(again.state()) == bits(join.state())
    closed_ms = 1 + WINDOW_MS + 1
    assert learned(world, again, [(closed_ms + age_ms, served)])[1] == counts


def test_no_more_requests_are_known_than_may_wait(world) -> None:
    join = Join(window_ms=WINDOW_MS, mode="served", max_pending=3)
    learned(world, join, [(number, world.served(f"r{number}", "a", time_ms=number)) for number in range(9)])
    assert len(join.state()["closed.hash"]) == 3


def test_what_an_older_release_remembers_is_known(world, join: Join) -> None:
    """It kept requests whose windows had closed among the others."""
    learned(world, join, [(1, world.served("r", "a", time_ms=1))])
    state = {name: array for name, array in join.state().items() if not name.startswith("closed.")}
    past = [Request("r", 1, b"", memory.array("q"))]
    older = Join(window_ms=WINDOW_MS, mode="served", max_pending=1_000)
    older.restore({**state, **memory.pack_requests(past)})
    assert older.pending == 0
    records: list[Record] = [(4_000, world.served("r", "a", time_ms=4_000)), (4_001, click("r"))]
    assert learned(world, older, records) == ({}, {"duplicate": 1, "late": 1})


@pytest.mark.parametrize("others_ms", [10_000, 10_000 + WINDOW_MS + 1])
@pytest.mark.parametrize("clicked_ms", [10_000, 10_001, 10_000 + WINDOW_MS])
def test_a_request_that_two_lanes_serve_is_learned_by_each(world, join: Join, others_ms: int, clicked_ms: int) -> None:
    """Whichever record comes first, and also where the click comes between the two."""
    ours = world.served("r", "a", time_ms=10_000)
    records: list[Record] = [(others_ms, "r"), (clicked_ms, click("r")), (10_000 + WINDOW_MS, ours)]
    records.sort(key=lambda record: record[0])
    assert learned(world, join, records) == ({"r": [clicked_ms]}, {"matched": 1})


@pytest.mark.parametrize("clicked_ms", [9_999, 10_001, 10_000 + WINDOW_MS, 10_001 + WINDOW_MS])
def test_feedback_on_another_lanes_request_is_ignored_when_ours_does_not_come(
    world, join: Join, clicked_ms: int
) -> None:
    records: list[Record] = [(10_000, "r"), (clicked_ms, click("r"))]
    assert learned(world, join, sorted(records, key=lambda record: record[0])) == ({}, {"ignored": 1})
    assert len(join.state()["early"]) == 1, "nothing waits any more"


@pytest.mark.parametrize("told", [False, True])
def test_what_gives_way_does_so_however_often_the_clock_is_told(world, told: bool) -> None:
    join = Join(window_ms=WINDOW_MS, mode="served", max_pending=1)
    join.ignore(world.entry(b"", 1), "r")
    join.feedback(world.entry(b"", 2), click("r"))
    join.ignore(world.entry(b"", 3), "another")
    counts = join.take(3).counts if told else Counter()
    assert counts + learned(world, join, [(2 * WINDOW_MS, "the end")])[1] == {"unknown_request": 1}
