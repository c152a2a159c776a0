"""The intake: records checked together are what they are alone."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import FeatureSpec
from service.events import Event, Served
from service.streams import Entry
from service.training.intake import Intake, Useless


def records(world) -> list[Served | Event]:
    """Good ones, another lane's, and one for each fault."""
    good = world.served("good", ("a", "b", "c"))
    negative = np.array(good.items()[0])
    negative[2, 1] = -1

    def changed(**changes: object) -> Served:
        return msgspec.structs.replace(good, request_id=f"bad {next(iter(changes))}", **changes)

    return [
        good,
        world.served("another good one", ("a",)),
        world.served("elsewhere", lane="another"),
        Event(id="e", type="click", request_id="good", item_id="a"),
        changed(spec_hash="other"),
        changed(lambda_=-1.0),
        changed(item_index=negative.tobytes()),
        changed(item_weight=np.full(12, 10.5, np.float32).tobytes()),
        changed(item_index=b"", item_weight=b""),
        changed(context_weight=np.array([np.nan], np.float32).tobytes()),
        changed(p_click=[0.5, 0.5, -0.1]),
        changed(score=[0.5, math.inf, 0.5]),
    ]


def told(messages: list[Served | Event | Useless]) -> list[object]:
    return [(one.request_id, one.error and one.error.code) if isinstance(one, Useless) else one for one in messages]


@given(st.lists(st.integers(0, 11), max_size=6))
def test_together_is_one_by_one(world, chosen: list[int]) -> None:
    intake, known = Intake(world.spec, "default"), records(world)
    entries = [world.entry(known[place], 1 + number) for number, place in enumerate(chosen)]
    assert told(intake.read(entries)) == [one for entry in entries for one in told(intake.read([entry]))]


def test_each_fault_is_named(world) -> None:
    messages = Intake(world.spec, "default").read([world.entry(one, 1) for one in records(world)])
    good, useless = messages[:2] + messages[3:4], messages[2:3] + messages[4:]
    assert good == records(world)[:2] + records(world)[3:4]
    assert told(useless)[:2] == [("elsewhere", None), ("bad spec_hash", "spec_mismatch")]
    assert all(isinstance(one, Useless) and one.error and one.error.code == "unreadable_entry" for one in useless[2:])
    assert all(one.request_id.startswith("bad") for one in useless[1:])


@pytest.mark.parametrize("payload", [b"", b"\x01\xff", b"\x09abc"])
def test_what_cannot_be_decoded_has_no_request(world, payload: bytes) -> None:
    (found,) = Intake(world.spec, "default").read([Entry("test:{0}:served", "1-0", payload)])
    assert isinstance(found, Useless)
    assert found.request_id is None
    assert found.error is not None


def test_a_spec_without_context_fields(world) -> None:
    spec = FeatureSpec(tuple(one for one in world.spec.fields if one.side == "item"))
    record = msgspec.structs.replace(world.served("r"), spec_hash=spec.hash, context_index=b"", context_weight=b"")
    assert Intake(spec, "default").read([world.entry(record, 1)]) == [record]
