"""What is decoded is what was encoded, and nothing is large."""

import hashlib
import json
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EventError
from service.events import (
    MAX_ID_LENGTH,
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

text = st.text(max_size=20)
ids = st.text(min_size=1, max_size=MAX_ID_LENGTH)
probability = st.floats(0, 1)
# msgpack keeps nanoseconds, JSON and Python microseconds: all of a datetime survives.
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@st.composite
def served_records(draw: st.DrawFn) -> Served:
    rows, context_slots, item_slots = draw(st.integers(1, 5)), draw(st.integers(0, 4)), draw(st.integers(1, 4))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    def floats(slots: int) -> bytes:
        return np.linspace(-1.0, 1.0, slots, dtype=np.float32).tobytes()

    return Served(
        request_id=draw(ids),
        time_ms=draw(st.integers(0, 2**53)),
        lane=draw(text),
        strategy=draw(text),
        version=draw(st.integers(0, 10**12)),
        lambda_=draw(probability),
        seed=draw(st.integers(0, 2**64 - 1)),
        spec_hash=draw(text),
        bucket=draw(st.none() | st.integers(0, 999)),
        context_index=np.arange(context_slots, dtype=np.int32).tobytes(),
        context_weight=floats(context_slots),
        item_ids=column(ids),
        item_index=np.arange(rows * item_slots, dtype=np.int32).tobytes(),
        item_weight=floats(rows * item_slots),
        p_click=column(probability),
        score=column(probability),
        explored=column(st.booleans()),
        impressions=column(st.integers(0, 2**53)),
        propensity=column(probability) if draw(st.booleans()) else None,
    )


events = st.builds(
    Event,
    id=ids,
    type=st.sampled_from(["impression", "click"]),
    request_id=ids,
    item_id=ids,
    time=st.none() | times,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),  # JSON has neither
)


@given(served_records())
def test_served_survives(record: Served) -> None:
    assert decode_served(encode(record)) == record


@given(events)
def test_an_event_survives(event: Event) -> None:
    assert decode_event(encode(event)) == event


@given(events)
def test_an_event_may_be_the_json_of_the_api(event: Event) -> None:
    assert decode_event(msgspec.json.encode(event)) == event


@given(text, st.integers(0, 10**12), st.binary(max_size=50))
def test_announcements_and_dead_letters_survive(word: str, number: int, payload: bytes) -> None:
    announcement = Announcement(lane=word, version=number)
    letter = dead_letter(stream=word, position="1-0", payload=payload, error=EventError(word, word))
    assert (letter.payload, letter.size, letter.detail) == (payload, len(payload), word)
    assert decode_announcement(encode(announcement)) == announcement
    assert decode_dead_letter(encode(letter)) == letter


def test_a_dead_letter_is_small_and_says_what_it_leaves_out() -> None:
    payload = bytes(range(256)) * 40_000
    letter = dead_letter(stream="s", position="1-0", payload=payload, error=EventError("spec_mismatch", "x" * 10**7))
    assert len(encode(letter)) < 5_000
    assert payload.startswith(letter.payload)
    assert (len(letter.payload), letter.size) == (4_096, len(payload))
    assert letter.sha256 == hashlib.sha256(payload).hexdigest()


def test_an_event_is_never_large_and_none_that_the_api_takes_is_too_large() -> None:
    longest = "\U0001f600" * MAX_ID_LENGTH  # in JSON 12 bytes a character, where it is escaped
    event = {"id": longest, "type": "impression", "request_id": longest, "item_id": longest}
    payload = json.dumps(event | {"time": "2026-01-01T00:00:00.000000+00:00", "value": 1.0}).encode()
    assert len(payload) > 9_000
    assert decode_event(payload).id == longest
    with pytest.raises(EventError, match="unreadable_entry"):
        decode_event(b"{" + b" " * 10_000_000 + payload[1:])


def test_milliseconds_are_unix_time() -> None:
    assert from_millis(1_500) == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
