"""A short form of `agerank chaos redis`: a real server killed and paused under load, and what breaks the promise."""

import json

import pytest
from typer.testing import CliRunner

from scripts.chaos.counts import Log
from scripts.chaos.redis import holds
from scripts.cli import app


def test_no_accepted_event_is_lost_while_redis_dies_and_stands_still() -> None:
    options = ["--kills", "2", "--pauses", "1", "--pause", "0.5", "--every", "0.5", "--rate", "20", "--json"]
    run = CliRunner().invoke(app, ["chaos", "redis", *options])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert (found["kills"], found["pauses"], found["gaps"], found["failures"]) == (2, 1, 0, {})
    assert found["events"] == found["logged"] == found["learned"] > 20
    assert found["kill_s"].keys() == found["pause_s"].keys() == {"median", "longest"}


FINE = {
    "ranked": 9, "failed": 0, "events": 5, "logged": 5, "learned": 5,
    "missing": 0, "doubled": 0, "rejected": 0, "gaps": 0, "dropped": 0, "unrecorded": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"failed": 1}, False),
        ({"missing": 1}, False),
        ({"doubled": 1}, False),
        ({"dropped": 1}, False),
        ({"unrecorded": 1}, False),
        ({"gaps": 1}, False),
        ({"rejected": 1}, False),
        ({"logged": 6}, False),
        ({"learned": 4}, False),
        ({"ranked": 0}, False),
    ],
)
def test_what_breaks_the_promise(change: dict[str, int], expected: bool) -> None:
    assert holds(FINE | change) is expected


def test_what_is_missing_and_what_is_there_twice_is_counted() -> None:
    log = Log(events=["a", "b", "b"], served=["r-1", "r-1", "r-2"])
    expected = {"logged": 2, "doubled": 1, "missing": 1, "served_twice": 1, "unrecorded": 2}
    assert log.compared({"a", "c"}, {"r-1", "r-3", "r-4"}) == expected
