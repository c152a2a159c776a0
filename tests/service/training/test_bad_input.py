"""Everything at once that can spoil a partition, on a real server: what is learned is what it would have been."""

from collections import Counter
from uuid import uuid4

import numpy as np
import pytest
import redis

from service.appends import append_batch
from service.events import Event, encode
from service.streams import LogReader, StreamNames
from service.training.outcome import Outcome
from service.training.trainer import Trainer

YEAR_MS = 365 * 24 * 3_600_000
JUNK = 1_500


@pytest.fixture(scope="module")
def traffic(world) -> list:
    return world.traffic(120)


def follow(client: redis.Redis, names: StreamNames, trainer: Trainer) -> Outcome:
    """Everything that there is to read, into one outcome."""
    reader, positions, total = LogReader(client, names), {}, Outcome()
    while entries := reader.read(positions, block_ms=100):
        positions |= {entry.stream: entry.position for entry in entries}
        outcome = trainer.feed(entries)
        total.dead_letters += outcome.dead_letters
        total.join += outcome.join
    return total


def in_partition(names: StreamNames, number: int) -> str:
    """A request id of it."""
    return next(one for one in map(str, range(100)) if names.feedback(one) == names.inputs[2 * number + 1])


def spoiled(traffic: list, names: StreamNames) -> list:
    """With junk in the first partition, several times as much as there is traffic, and feedback on nothing."""
    generator, victim = np.random.default_rng(0), in_partition(names, 0)
    of = type(traffic[0])
    times = generator.integers(traffic[0].time_ms, traffic[-1].time_ms, size=JUNK).tolist()
    junk = [of(time_ms, "feedback", victim, b"\x01junk") for time_ms in times]
    junk.append(of(times[0], "served", victim, b"\x01" + bytes(10_000_000)))
    junk += [of(time_ms, "served", victim, b"\x07another release") for time_ms in times[:10]]
    for number, time_ms in enumerate(times[:200]):
        event = Event(id=f"flood-{number}", type="click", request_id=victim, item_id="x")
        junk.append(of(time_ms, "feedback", victim, encode(event)))
    return sorted([*traffic, *junk], key=lambda one: one.time_ms)


def test_a_spoiled_partition_spoils_no_weight(world, client: redis.Redis, traffic: list, bits) -> None:
    found, outcomes = [], []
    for clean in (True, False):
        names, trainer = StreamNames(f"test-{uuid4().hex}", 2), world.trainer()
        append_batch(client, world.batch(traffic if clean else spoiled(traffic, names), names))
        if not clean:
            now_ms = client.time()[0] * 1000
            append_batch(client, [(names.inputs[number], b"far", f"{now_ms + YEAR_MS}-0") for number in (0, 1)])
        last = [in_partition(names, number) for number in (0, 1)]
        append_batch(client, [(names.served(one), encode(world.served(one)), None) for one in last])
        outcomes.append(follow(client, names, trainer))
        found.append((trainer.learner.step, bits(trainer.weights())))
    assert found[0] == found[1]
    clean, bad = (Counter(letter.code for letter in one.dead_letters) for one in outcomes)
    # Two that were too far ahead, and "far" is of another schema.
    assert bad - clean == {"unreadable_entry": JUNK + 1, "schema_version": 12, "unknown_request": 200}
    assert max(len(encode(letter)) for letter in outcomes[1].dead_letters) < 5_000
    assert max(letter.size for letter in outcomes[1].dead_letters) == 10_000_001
