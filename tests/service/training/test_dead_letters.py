"""What the pure trainer cannot use it sets aside, and goes on as if it had never been."""

import math

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import Event


def click(request_id: str, item_id: str) -> Event:
    return Event(id=f"{request_id}-{item_id}", type="click", request_id=request_id, item_id=item_id)


def broken(world) -> dict[str, tuple[object, str]]:
    """Entries that must be set aside, and with which code."""
    good = world.served("bad", ("a", "b"))
    index, weight = (np.array(part) for part in good.items())
    far, negative, infinite = index.copy(), index.copy(), weight.copy()
    far[1, 0], negative[0, 0], infinite[0, 0] = 10_000, -1, np.nan

    def changed(**changes: object) -> object:
        return msgspec.structs.replace(good, **changes)

    return {
        "empty": (b"", "schema_version"),
        "another schema": (b"\x07abc", "schema_version"),
        "garbage": (b"\x01\xff\xff", "unreadable_entry"),
        "an event among the served": (click("r", "a"), "unreadable_entry"),
        "another spec": (changed(spec_hash="other"), "spec_mismatch"),
        "narrow rows": (changed(item_index=b"\0" * 8, item_weight=b"\0" * 8), "unreadable_entry"),
        "no context": (changed(context_index=b"", context_weight=b""), "unreadable_entry"),
        "row beyond the table": (changed(item_index=far.tobytes()), "unreadable_entry"),
        "negative row": (changed(item_index=negative.tobytes()), "unreadable_entry"),
        "weight not a number": (changed(item_weight=infinite.tobytes()), "unreadable_entry"),
        "weight that overflows": (changed(item_weight=np.full(8, 3e38, np.float32).tobytes()), "unreadable_entry"),
        "time that overflows": (changed(time_ms=2**63), "unreadable_entry"),
        "p_click above 1": (changed(p_click=[0.5, 1.5]), "unreadable_entry"),
        "score not a number": (changed(score=[0.5, math.nan]), "unreadable_entry"),
        "infinite lambda": (changed(lambda_=math.inf), "unreadable_entry"),
    }


def test_what_cannot_be_used_is_set_aside_and_stops_nothing(world, bits) -> None:
    good = [world.entry(world.served(f"r{number}"), 10 + number) for number in range(40)]
    end = world.entry(world.served("end", time_ms=10_000), 10_000)
    clean, trainer = world.trainer(), world.trainer()
    clean.feed([*good, end])
    bad = {name: world.entry(message, 50, "served") for name, (message, _) in broken(world).items()}
    feedback = [world.entry(click("bad", "a"), 51), world.entry(b"{}", 52, "feedback")]
    outcome = trainer.feed([*good, *bad.values(), *feedback, end])
    codes = {name: code for name, (_, code) in broken(world).items()}
    assert [letter.code for letter in outcome.dead_letters] == [*codes.values(), "unreadable_entry"]
    assert [letter.payload for letter in outcome.dead_letters[:-1]] == [entry.payload for entry in bad.values()]
    assert outcome.join == {"ignored": 1}  # feedback on a record that was set aside
    assert bits(trainer.weights()) == bits(clean.weights())


@settings(max_examples=200)
@given(
    payload=st.binary(max_size=80), kind=st.sampled_from(["served", "feedback"]), prefix=st.sampled_from([b"", b"\1"])
)
def test_no_bytes_stop_the_trainer(world, payload: bytes, kind: str, prefix: bytes) -> None:
    outcome = world.trainer().feed([world.entry(prefix + payload, 1, kind)])
    assert len(outcome.dead_letters) <= 1


def test_an_id_beyond_all_times_stops_nothing(world) -> None:
    """A stream takes any uint64 for the milliseconds of an id, from whoever sets it."""
    good = [world.entry(world.served(f"r{number}"), number) for number in range(1, 41)]
    far = [world.entry(world.served("far"), 2**63), world.entry(click("r1", "a"), 2**64 - 1)]
    end = world.entry(world.served("end"), 2**63 - 1)
    trainer, clean = world.trainer(), world.trainer()
    outcome = trainer.feed([*good, *far, end])
    assert [(one.code, one.position) for one in outcome.dead_letters] == [
        ("unreadable_entry", entry.position) for entry in far
    ]
    clean.feed([*good, end])
    assert outcome.predictions
    assert trainer.learner.step == clean.learner.step
    assert trainer.data_timestamp_ms == clean.data_timestamp_ms


def test_feedback_on_nothing_is_set_aside_with_its_own_entry(world) -> None:
    lost, wrong = world.entry(click("nowhere", "a"), 1), world.entry(click("r", "z"), 3)
    log = [lost, world.entry(world.served("r"), 2), wrong, world.entry(world.served("end"), 10_000)]
    letters = world.trainer().feed(log).dead_letters
    assert [(one.code, one.stream, one.position, one.payload) for one in letters] == [
        ("unknown_item", *wrong),
        ("unknown_request", *lost),
    ]
