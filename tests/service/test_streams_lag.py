"""The reader says how far behind it is, and whether it has missed something."""

import pytest
import redis

from service.appends import append_batch
from service.streams import START, LogReader, StreamNames, lost


def test_lag_counts_what_comes_after_our_position(client: redis.Redis, names: StreamNames) -> None:
    served, feedback, *_ = names.inputs
    append_batch(client, [(served, b"", f"{ms}-0") for ms in range(1, 91)])
    append_batch(client, [(feedback, b"", "5-0")])
    reader = LogReader(client, names)
    rest = dict.fromkeys(names.inputs[2:], 0)
    assert reader.lag({}) == {served: 90, feedback: 1} | rest
    assert reader.lag({served: "30-0", feedback: "5-0"}) == {served: 60, feedback: 0} | rest
    assert reader.lag({served: "30-5"})[served] == 60  # a position need not be an entry's
    assert reader.lag({served: "99-0"})[served] == 0


def test_a_long_lag_is_near_the_truth(client: redis.Redis, names: StreamNames) -> None:
    stream = names.inputs[0]
    append_batch(client, [(stream, b"", f"{1_000 + ms}-0") for ms in range(2_000)])
    reader = LogReader(client, names)
    assert reader.lag({})[stream] == 2_000
    assert reader.lag({stream: "1500-0"})[stream] == pytest.approx(1_500, rel=0.01)
    assert reader.lag({stream: "2850-0"})[stream] == pytest.approx(149, rel=0.01)
    assert reader.lag({stream: "2901-0"})[stream] == 98


def test_a_long_lag_within_one_millisecond_is_at_least_what_was_counted(
    client: redis.Redis, names: StreamNames
) -> None:
    stream = names.inputs[0]
    append_batch(client, [(stream, b"", f"7-{seq}") for seq in range(300)])
    assert LogReader(client, names).lag({stream: "7-50"})[stream] >= 100


@pytest.fixture
def trimmable(client: redis.Redis, names: StreamNames) -> str:
    """A stream of the entries 1-0 to 9-0."""
    append_batch(client, [(names.inputs[0], b"", f"{ms}-0") for ms in range(1, 10)])
    return names.inputs[0]


def missed(client: redis.Redis, names: StreamNames, position: str) -> bool:
    there = client.exists(names.inputs[0])
    return lost(client.xinfo_stream(names.inputs[0]) if there else None, position)


@pytest.mark.parametrize(
    ("kept", "position", "lost"),
    [
        (9, START, False),
        (9, "4-0", False),
        (4, "5-0", True),  # 6-0 is the first that stands; of 5-0 itself nobody can tell, so we had better say so
        (4, "6-0", False),
        (4, "3-0", True),
        (4, START, True),
        (4, "9-0", False),
        (0, "8-0", True),
        (0, "9-0", False),
    ],
)
def test_what_was_trimmed_before_we_read_it(
    client: redis.Redis, names: StreamNames, trimmable: str, kept: int, position: str, lost: bool
) -> None:
    client.xtrim(trimmable, maxlen=kept, approximate=False)
    assert missed(client, names, position) is lost


def test_an_entry_taken_out_of_the_middle_is_missed_too(
    client: redis.Redis, names: StreamNames, trimmable: str
) -> None:
    client.xdel(trimmable, "6-0")
    assert missed(client, names, "5-0")
    assert not missed(client, names, "6-0")


def test_a_stream_that_is_gone_is_missed_by_who_had_read_from_it(
    client: redis.Redis, names: StreamNames, trimmable: str
) -> None:
    client.delete(trimmable)
    assert missed(client, names, "5-0")
    assert not missed(client, names, START)
