"""The words on the streams: Served, Event, Announcement, DeadLetter. One encode and one decode each.

An entry is one byte of schema version and then msgpack. A caller who writes feedback straight to the stream may send
the JSON object of POST /v1/events instead: an entry that starts with "{" is read as such.
"""

import hashlib
from collections.abc import Sized
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from models.types import Array
from service.errors import EventError

SCHEMA = 1
MAX_ID_LENGTH = 256  # characters of request, item, event and user ids
MAX_EVENT_BYTES = 16 * 1024  # more than three ids can fill, however their characters are written
MAX_DEAD_BYTES = 4 * 1024  # of what a dead letter repeats of its entry
MAX_DETAIL_LENGTH = 500  # characters of its detail, in which there may be a part of the entry

T = TypeVar("T")

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]

EventType = Literal["impression", "click"]


class Served(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one request was answered: everything the trainer needs to learn from it and an auditor to repeat it.

    The arrays hold the L shown items, best first.
    """

    request_id: Id
    time_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # scorer's clock, Unix
    lane: str
    strategy: str
    version: int  # of the model that scored
    lambda_: float
    seed: int  # uint64
    spec_hash: str
    bucket: int | None  # of the experiment, None where the caller named the strategy
    context_index: bytes  # (1, Kc) int32
    context_weight: bytes  # (1, Kc) float32
    item_ids: list[Id]
    item_index: bytes  # (L, Ki) int32
    item_weight: bytes  # (L, Ki) float32
    p_click: list[float]
    score: list[float]
    explored: list[bool]
    impressions: list[int]  # of each item, as the scorer knew them
    propensity: list[float] | None

    def context(self) -> tuple[Array, Array]:
        """((1, Kc) int32, (1, Kc) float32)."""
        return (
            np.frombuffer(self.context_index, np.int32).reshape(1, -1),
            np.frombuffer(self.context_weight, np.float32).reshape(1, -1),
        )

    def items(self) -> tuple[Array, Array]:
        """((L, Ki) int32, (L, Ki) float32)."""
        rows = len(self.item_ids)
        return (
            np.frombuffer(self.item_index, np.int32).reshape(rows, -1),
            np.frombuffer(self.item_weight, np.float32).reshape(rows, -1),
        )


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Feedback on one item of one request."""

    id: Id  # idempotency key: the first event of an id counts
    type: EventType
    request_id: Id
    item_id: Id
    time: Annotated[datetime, Meta(tz=True)] | None = None  # when it happened, RFC 3339 with a zone
    value: float | None = None  # reserved for graded feedback; carried, not learned from

    def __post_init__(self) -> None:
        if self.time is not None:
            try:
                self.time.astimezone(UTC)  # which is how it is written, here and in the trainer's state
            except OverflowError:
                raise ValueError("time lies outside of the years 1 to 9999 UTC") from None


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """A version was published."""

    lane: str
    version: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that was not used, and why. Small, whatever the entry was: the log may hold anything."""

    stream: str
    position: str
    code: str
    detail: str  # its beginning
    payload: bytes  # its beginning
    size: int  # bytes of the whole payload
    sha256: str  # of the whole payload


Message = Served | Event | Announcement | DeadLetter

_PREFIX = bytes([SCHEMA])
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the decoder raises all three
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    return _PREFIX + _encoder.encode(message)


def decode_served(payload: bytes) -> Served:
    """Raises EventError: unreadable_entry, schema_version."""
    served = _decode(payload, _served)
    rows = len(served.item_ids)
    context, item = len(served.context_index), len(served.item_index)  # bytes, of 4 to a number
    whole = rows > 0 and context % 4 == 0 and item % (4 * rows) == 0
    paired = len(served.context_weight) == context and len(served.item_weight) == item
    columns: list[Sized] = [served.p_click, served.score, served.explored, served.impressions]
    if served.propensity is not None:
        columns.append(served.propensity)
    if not (whole and paired) or any(len(column) != rows for column in columns):
        raise EventError("unreadable_entry", "the arrays of a served record differ in length")
    return served


def dead_letter(*, stream: str, position: str, payload: bytes, error: EventError) -> DeadLetter:
    """What becomes of an entry that cannot be used."""
    return DeadLetter(
        stream=stream,
        position=position,
        code=error.code,
        detail=error.detail[:MAX_DETAIL_LENGTH],
        payload=payload[:MAX_DEAD_BYTES],
        size=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
    )


def decode_event(payload: bytes) -> Event:
    """Raises EventError: unreadable_entry, schema_version."""
    if len(payload) > MAX_EVENT_BYTES:  # it may have to wait in memory for its request
        raise EventError("unreadable_entry", f"an event of {len(payload)} bytes; there can be {MAX_EVENT_BYTES}")
    if payload[:1] == b"{":
        try:
            return _event_json.decode(payload)
        except _UNREADABLE as error:
            raise EventError("unreadable_entry", str(error)) from None
    return _decode(payload, _event)


def decode_announcement(payload: bytes) -> Announcement:
    """Raises EventError: unreadable_entry, schema_version."""
    return _decode(payload, _announcement)


def decode_dead_letter(payload: bytes) -> DeadLetter:
    """Raises EventError: unreadable_entry, schema_version."""
    return _decode(payload, _dead_letter)


def _decode(payload: bytes, decoder: "msgspec.msgpack.Decoder[T]") -> T:
    if payload[:1] != _PREFIX:
        found = payload[0] if payload else "none"
        raise EventError("schema_version", f"this build reads entries of schema {SCHEMA}, found {found}")
    try:
        return decoder.decode(payload[1:])
    except _UNREADABLE as error:
        raise EventError("unreadable_entry", str(error)) from None


_served = msgspec.msgpack.Decoder(Served)
_event = msgspec.msgpack.Decoder(Event)
_event_json = msgspec.json.Decoder(Event)
_announcement = msgspec.msgpack.Decoder(Announcement)
_dead_letter = msgspec.msgpack.Decoder(DeadLetter)


def from_millis(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC)
