"""Partitions joined apart close in one order, whoever has them and however they are read."""

import heapq
from collections import Counter

import msgspec
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.events import Event, Served, encode
from service.streams import Entry, order
from service.training.join import Join, Mode
from service.training.joins import Joins
from service.training.memory import Closed

WINDOW_MS = 20
PARTITIONS = 3
Message = Served | Event | None  # None: ignored
Log = list[tuple[Entry, Message]]


def joins(mode: Mode = "served", max_pending: int = 9) -> Joins:
    return Joins(lambda: Join(window_ms=WINDOW_MS, mode=mode, max_pending=max_pending))


def traffic(world, seed: int) -> Log:
    """Entries of all partitions in the order of the log, many of a millisecond."""
    generator = np.random.default_rng(seed)
    log: Log = []
    slates = [world.served("", "abc"[:size]) for size in (1, 2, 3)]
    time_ms, next_seq = 0, 0
    for number in range(120):
        wait_ms = int(generator.choice([0, 0, 1, 2, 30], p=[0.4, 0.2, 0.2, 0.15, 0.05]))
        time_ms, next_seq = time_ms + wait_ms, 0 if wait_ms else next_seq + int(generator.integers(2))
        partition = int(generator.integers(PARTITIONS))
        request_id = f"r{partition}-{number // 12}-{generator.integers(3)}"
        kind = str(generator.choice(["served", "click", "impression", "ignored"], p=[0.35, 0.35, 0.25, 0.05]))
        message: Message = None
        if kind == "served":
            message = msgspec.structs.replace(slates[generator.integers(3)], request_id=request_id)
        elif kind != "ignored":
            event_id, item_id = f"{partition}-{generator.integers(60)}", "abc"[generator.integers(3)]
            message = Event(id=event_id, type=kind, request_id=request_id, item_id=item_id)
        stream = f"log:{{{partition}}}:{'feedback' if isinstance(message, Event) else 'served'}"
        log.append((Entry(stream, f"{time_ms}-{next_seq}", encode(message) if message else b""), message))
    return sorted(log, key=lambda one: (order(one[0].position), one[0].stream))


def feed(into: Joins, log: Log) -> None:
    for entry, message in log:
        join = into.of(entry.stream)
        if message is None:
            join.ignore(entry, f"ignored-{entry.position}")
        elif isinstance(message, Served):
            join.serve(entry, message)
        else:
            join.feedback(entry, message)


def partition_of(entry: Entry) -> int:
    return int(entry.stream.split("{")[1][0])


def apart(world, log: Log, mode: Mode, seed: int) -> tuple[list[Closed], Counter[str]]:
    """The log by several readers, each of some partitions, which read ahead of each other and restart now and then."""
    generator = np.random.default_rng(seed)
    owner = generator.integers(PARTITIONS, size=PARTITIONS)
    parts = [[one for one in log if owner[partition_of(one[0])] == reader] for reader in range(PARTITIONS)]
    readers = [joins(mode) for _ in parts]
    closed: list[Closed] = []
    counts: Counter[str] = Counter()
    while any(parts):
        for reader, part in enumerate(parts):
            taken = int(generator.integers(30))
            feed(readers[reader], part[:taken])
            del part[:taken]
        until_ms = min((part[0][0].time_ms - 1 for part in parts if part), default=10**6)
        found = [one.take(until_ms) for one in readers]
        closed += heapq.merge(*(one.closed for one in found), key=lambda one: one.order)
        counts += sum((one.counts for one in found), Counter())
        if generator.random() < 0.3:
            again = [joins(mode) for _ in parts]
            for old, new in zip(readers, again, strict=True):
                new.restore(old.state())
            readers = again
    return closed, counts


@settings(max_examples=40)
@example(91, "events")  # the clock leaps over the end of a window and of the wait for it
@example(16540, "events")  # and over so many that some are forgotten meanwhile
@given(st.integers(0, 10**6), st.sampled_from(["served", "events"]))
def test_what_closes_depends_on_the_log_alone(world, seed: int, mode: Mode) -> None:
    log = traffic(world, seed)
    whole = joins(mode)
    feed(whole, log)
    expected = whole.take(10**6)
    assert [one.order for one in expected.closed] == sorted(one.order for one in expected.closed)
    for readers in range(2):
        assert apart(world, log, mode, 2 * seed + readers) == (expected.closed, expected.counts)


def test_only_what_is_certain_is_given_out(world) -> None:
    """Of two partitions, one evicts early what it was shown late; the other may yet close something before."""
    one = joins(max_pending=2)
    log: Log = [(Entry("x:{0}:served", f"{time_ms}-0", encode(message)), message) for time_ms, message in [
        (50, world.served("r1", "ab")), (60, world.served("r2", "ab")),
    ]]  # fmt: skip
    feed(one, log)
    assert one.take(59).closed == []
    again = joins(max_pending=2)
    again.restore(one.state())
    for each in (one, again):
        assert [(closed.served.request_id, closed.order.time_ms) for closed in each.take(60).closed] == [("r1", 60)]


def test_states_of_different_readers_make_one(world, bits) -> None:
    """Whoever resumes may own other partitions than whoever stopped."""
    log = traffic(world, 5)
    whole, first, second, resumed = joins(), joins(), joins(), joins()
    feed(whole, log)
    feed(first, [one for one in log if partition_of(one[0]) < 2])
    feed(second, [one for one in log if partition_of(one[0]) == 2])
    resumed.restore({**second.state(), **first.state()})
    whole.take(0)  # what has been counted is no part of a state
    assert resumed.pending == whole.pending > 0
    assert bits(resumed.state()) == bits(whole.state())
    found, expected = resumed.take(10**6), whole.take(10**6)
    assert (found.closed, found.counts) == (expected.closed, expected.counts)
