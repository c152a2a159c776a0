"""What is not an event is an EventError, whatever it is: nothing on a stream may stop the trainer."""

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EventError
from service.events import (
    MAX_ID_LENGTH,
    SCHEMA,
    Announcement,
    Event,
    Served,
    dead_letter,
    decode_announcement,
    decode_dead_letter,
    decode_event,
    decode_served,
    encode,
    from_millis,
)

DECODERS = [decode_served, decode_event, decode_announcement, decode_dead_letter]


def a_served(**changes: object) -> Served:
    """Two items, three context slots, two item slots."""
    record = Served(
        request_id="r",
        time_ms=1,
        lane="default",
        strategy="greedy",
        version=0,
        lambda_=0.0,
        seed=2**64 - 1,
        spec_hash="0" * 16,
        bucket=None,
        context_index=np.array([1, 2, 3], np.int32).tobytes(),
        context_weight=np.array([1.0, 0.5, 0.25], np.float32).tobytes(),
        item_ids=["a", "b"],
        item_index=np.array([[1, 2], [3, 4]], np.int32).tobytes(),
        item_weight=np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).tobytes(),
        p_click=[0.5, 0.25],
        score=[0.5, 0.25],
        explored=[False, True],
        impressions=[0, 9],
        propensity=[1.0, 0.5],
    )
    return msgspec.structs.replace(record, **changes)


def test_the_arrays_come_back_in_their_shapes() -> None:
    record = decode_served(encode(a_served()))
    (context_index, context_weight), (item_index, item_weight) = record.context(), record.items()
    np.testing.assert_array_equal(context_index, [[1, 2, 3]])
    np.testing.assert_array_equal(context_weight, [[1.0, 0.5, 0.25]])
    np.testing.assert_array_equal(item_index, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(item_weight, [[1.0, 2.0], [3.0, 4.0]])
    assert (item_index.dtype, item_weight.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("change", [{"request_id": "x" * 257}, {"item_ids": ["a", "x" * 257]}, {"request_id": ""}])
def test_a_served_record_has_the_ids_that_the_api_takes(change: dict[str, object]) -> None:
    """The trainer remembers them."""
    with pytest.raises(EventError, match="unreadable_entry"):
        decode_served(encode(a_served(**change)))


AN_EVENT = Event(id="e", type="click", request_id="r", item_id="a", time=from_millis(5), value=1.0)
DEAD = dead_letter(stream="s", position="1-0", payload=b"p", error=EventError("c", "d"))
WHOLE = [
    (decode_served, encode(a_served())),
    (decode_event, encode(AN_EVENT)),
    (decode_event, msgspec.json.encode(AN_EVENT)),
    (decode_announcement, encode(Announcement(lane="default", version=3))),
    (decode_dead_letter, encode(DEAD)),
]


@pytest.mark.parametrize(("decode", "payload"), WHOLE)
def test_a_payload_cut_anywhere_is_an_event_error(decode, payload: bytes) -> None:
    decode(payload)
    for end in range(len(payload)):
        with pytest.raises(EventError) as raised:
            decode(payload[:end])
        assert raised.value.code == ("unreadable_entry" if end else "schema_version")


@pytest.mark.parametrize(("decode", "payload"), WHOLE)
def test_bytes_after_the_end_are_an_event_error(decode, payload: bytes) -> None:
    with pytest.raises(EventError, match="unreadable_entry"):
        decode(payload + b"\x00")


@pytest.mark.parametrize(("decode", "payload"), WHOLE)
@pytest.mark.parametrize("schema", [0, SCHEMA + 1, 255])
def test_another_schema_is_told_apart_from_a_broken_entry(decode, payload: bytes, schema: int) -> None:
    with pytest.raises(EventError, match=f"found {schema}$") as raised:
        decode(bytes([schema]) + payload[1:])
    assert raised.value.code == "schema_version"


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=200), st.sampled_from([b"", bytes([SCHEMA]), b"{", b'{"id":"']))
def test_no_bytes_do_worse_than_an_event_error(decode, payload: bytes, start: bytes) -> None:
    with contextlib.suppress(EventError):
        decode(start + payload)


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (decode_event, b'{"id":"\xff","type":"click","request_id":"r","item_id":"a"}'),
        (decode_announcement, b"\x01\x82\xa4lane\xa1\xff\xa7version\x03"),
        (decode_announcement, b"\x01\x83\xa1z" + b"\x91" * 100_000 + b"\x00\xa4lane\xa1a\xa7version\x03"),
    ],
    ids=["json not utf-8", "msgpack not utf-8", "nested too deep"],
)
def test_what_the_decoder_itself_stumbles_over(decode, payload: bytes) -> None:
    with pytest.raises(EventError, match="unreadable_entry"):
        decode(payload)


@pytest.mark.parametrize("time_ms", [-1, 2**63])
def test_a_time_that_no_array_holds_is_refused(time_ms: int) -> None:
    with pytest.raises(EventError, match="unreadable_entry"):
        decode_served(encode(a_served(time_ms=time_ms)))


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_could_not_be_written_again_is_refused(time: str) -> None:
    payload = f'{{"id":"e","type":"click","request_id":"r","item_id":"a","time":"{time}"}}'
    with pytest.raises(EventError, match="unreadable_entry"):
        decode_event(payload.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"item_ids": []},
        {"item_ids": ["a"]},
        {"item_ids": ["a", "b", "c"]},
        {"p_click": [0.5]},
        {"score": [0.5, 0.5, 0.5]},
        {"explored": []},
        {"impressions": [1]},
        {"propensity": [1.0]},
        {"context_index": np.zeros(2, np.int32).tobytes()},
        {"context_weight": b""},
        {"item_index": np.zeros(2, np.int32).tobytes()},
        {"item_weight": np.zeros(6, np.float32).tobytes()},
        {"item_weight": b"\x00\x00\x00"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_arrays_that_differ_in_length_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(EventError) as raised:
        decode_served(encode(a_served(**changes)))
    assert raised.value.code == "unreadable_entry"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "x" * (MAX_ID_LENGTH + 1)},
        {"request_id": 5},
        {"item_id": None},
        {"type": "purchase"},
        {"time": "2026-01-01T00:00:00"},
        {"time": "yesterday"},
        {"value": "much"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_json_that_is_not_an_event_is_refused_by_both_ways_in(changes: dict[str, object]) -> None:
    event = {"id": "e", "type": "click", "request_id": "r", "item_id": "a", "time": "2026-01-01T00:00:00Z"} | changes
    for payload in (msgspec.json.encode(event), bytes([SCHEMA]) + msgspec.msgpack.encode(event)):
        with pytest.raises(EventError, match="unreadable_entry"):
            decode_event(payload)
