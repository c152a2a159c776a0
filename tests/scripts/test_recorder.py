"""What the recorder writes is what live traffic would have left: the join takes all of it, in any mode."""

from typing import Literal

import numpy as np
import pytest

from models.features import Encoder, FeatureError
from models.spec import FeatureSpec
from scripts.history import Logged
from scripts.recorder import Entries, Recorder
from service.events import decode_event, decode_served
from service.streams import Entry, StreamNames, order
from service.training.join import Join

SPEC = FeatureSpec.from_toml("""
[[fields]]
name = "country"
side = "user"
kind = "categorical"
buckets = 16

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 16
""")
NAMES = StreamNames("test", 2)
ROWS = [
    Logged("f:1", 1000, "u", "a", True, 0.25, {"country": "cz"}, {}, {}),
    Logged("f:2", 1000, "u", "a", True, 0.0, {"country": "cz"}, {}, {}),
    Logged("f:3", 1001, "v", "b", False, 0.0, {}, {}, {}),
]


def recorded(*, confirm: bool) -> Entries:
    recorder = Recorder(spec=SPEC, names=NAMES, lane="default", confirm=confirm)
    return [entry for row in ROWS for entry in recorder.entries(row)]


@pytest.mark.parametrize(("mode", "matched"), [("served", 2), ("events", 5)])
def test_the_join_finds_every_impression_and_click(mode: Literal["served", "events"], matched: int) -> None:
    join = Join(window_ms=10, mode=mode, max_pending=100)
    entries = [
        Entry(stream, position or "", payload) for stream, payload, position in recorded(confirm=mode == "events")
    ]
    end = Recorder(spec=SPEC, names=NAMES, lane="default", confirm=False).entries(ROWS[2]._replace(time_ms=2000))
    for entry in [*entries, *(Entry(stream, position or "", payload) for stream, payload, position in end)]:
        if entry.stream.endswith("served"):
            join.serve(entry, decode_served(entry.payload))
        else:
            join.feedback(entry, decode_event(entry.payload))
    joined = join.take(2000)
    assert joined.counts == {"matched": matched}
    assert [(one.time_ms, one.click_ms) for one in joined.closed] == [(1000, [1000]), (1000, [1000]), (1001, [-1])]


def test_positions_are_the_log_s_time_and_ascend_over_all_streams() -> None:
    entries = recorded(confirm=True)
    places = [order(position or "") for _, _, position in entries]
    assert places == sorted(set(places))
    assert [ms for ms, _ in places] == [1000] * 6 + [1001] * 2
    assert {stream for stream, _, _ in entries} <= set(NAMES.inputs)


def test_a_served_record_says_what_is_known_and_no_more() -> None:
    first, second, third = (
        decode_served(payload) for stream, payload, _ in recorded(confirm=False) if "served" in stream
    )
    batch = Encoder(SPEC).batch(["a"], [{}], user={"country": "cz"})
    for expected, got in zip(batch, (*first.context(), *first.items()), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert (first.strategy, first.p_click, first.score, first.propensity) == ("logged", [0.25], [0.25], None)
    assert (first.impressions, second.impressions, third.impressions) == ([0], [1], [0])
    assert len({first.request_id, second.request_id, third.request_id}) == 3
    assert first.spec_hash == SPEC.hash


def test_a_refused_value_leaves_no_trace() -> None:
    recorder = Recorder(spec=SPEC, names=NAMES, lane="default", confirm=False)
    with pytest.raises(FeatureError, match="city"):
        recorder.entries(ROWS[0]._replace(user={"city": "Prague"}))
    assert [position for _, _, position in recorder.entries(ROWS[0])] == ["1000-0", "1000-1"]
