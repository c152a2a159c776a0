"""The words on the wire of the scorer, and their decoding. The docstrings are the descriptions in /openapi.json."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.errors import BadRequest, Invalid, ServiceError, TooLarge
from service.events import Event, Id

T = TypeVar("T")

_VALUE = {"type": ["string", "number", "boolean", "array", "null"], "items": {"type": ["string", "integer", "boolean"]}}
#: Field -> value. The decoder takes any value: the encoder knows the spec, and names field and fault.
Features = Annotated[dict[str, Any], Meta(extra_json_schema={"additionalProperties": _VALUE})]


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the list is for. The id decides the traffic split and feeds fields of `source = "id"`."""

    id: Id | None = None
    features: Features | None = None


class Context(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The circumstances of the request: page, time, device."""

    features: Features | None = None


class Candidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item that may be shown. With a bid it is ordered by score times bid."""

    id: Id
    features: Features | None = None
    bid: Annotated[float, Meta(ge=0)] | None = None


class RankRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rank these candidates for this user. All randomness comes from the seed, or else from the request id."""

    request_id: Id | None = None
    user: User = User()
    context: Context = Context()
    candidates: Annotated[list[Candidate], Meta(min_length=1)]
    top_k: Annotated[int, Meta(ge=1)] | None = None
    strategy: str | None = None
    explain: bool | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class Model(Struct, frozen=True, kw_only=True):
    """The version that scored. data_timestamp: the newest event that it learned from, null before the first."""

    name: str
    version: int
    data_timestamp: datetime | None


class Experiment(Struct, frozen=True, kw_only=True):
    """Present where the traffic split chose the strategy."""

    bucket: int
    strategy: str


class Gate(Struct, frozen=True):
    """Whether the candidate may be explored: its p_click must reach the threshold."""

    open: bool
    threshold: float


class Explain(Struct, frozen=True, kw_only=True):
    """Why a candidate stands where it stands. delta = score - p_click, before any bid; step = lambda * uncertainty."""

    p_click: float
    score: float
    delta: float
    uncertainty: float
    gate: Gate
    gradient_norm: float
    step: float
    impressions: int
    rank_without_exploration: int


class RankedItem(Struct, frozen=True, gc=False):
    """A shown candidate. rank counts from 1; p_click is the plain prediction, score (times bid) orders the list."""

    id: str
    rank: int
    score: float
    p_click: float
    explored: bool
    propensity: float | UnsetType = UNSET
    explain: Explain | UnsetType = UNSET


WarningCode = Literal["log_unavailable", "served_record_dropped", "bid_missing", "item_unknown"]


class RankResponse(Struct, frozen=True, kw_only=True):
    """The slate, best first."""

    request_id: str
    model: Model
    strategy: str
    experiment: Experiment | UnsetType = UNSET
    items: list[RankedItem]
    propensity_method: Literal["exact", "monte_carlo"] | UnsetType = UNSET
    propensity_samples: int | UnsetType = UNSET
    warnings: list[WarningCode] | UnsetType = UNSET
    took_ms: float


class EventsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch of feedback. Each event stands for itself: a wrong one is rejected alone."""

    events: list[Event]


class EventResult(Struct, frozen=True, kw_only=True):
    """What became of one event. id is null where the event had none that could be read."""

    id: str | None
    result: Literal["accepted", "duplicate", "rejected"]
    code: Literal["invalid_event", "event_time"] | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class EventsResponse(Struct, frozen=True, kw_only=True):
    """One result an event, in the order of the request."""

    results: list[EventResult]


class _RawEvents(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    events: list[Raw]


_raw_events = msgspec.json.Decoder(_RawEvents)

encode = msgspec.json.Encoder().encode


def decode_events(body: bytes, *, max_events: int) -> list[Raw]:
    """The events of a batch, each still JSON. Raises BadRequest, Invalid, TooLarge too_many_events."""
    events = decode(body, _raw_events).events
    if len(events) > max_events:
        raise TooLarge("too_many_events", f"{len(events)} events, at most {max_events} allowed", path="events")
    return events


def decode(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Raises BadRequest malformed_json, Invalid invalid_request."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest("malformed_json", str(error)) from None
    except RecursionError:
        raise BadRequest("malformed_json", "nested too deeply") from None


class _Identified(Struct):
    id: str | None = None


def id_of(raw: Raw) -> str | None:
    """What a part of a batch that is rejected is called in its result, where that can be told."""
    try:
        return msgspec.json.decode(raw, type=_Identified).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_AT = re.compile(r"^(?P<detail>.*?)(?: - at `(?:key` in `)?\$(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:unknown|required) field `(.+)`")


def invalid(error: Exception, code: str = "invalid_request") -> ServiceError:
    """msgspec's sentence, its "$.candidates[3]" as our path "candidates[3].id"."""
    match = _AT.match(str(error))
    assert match is not None  # every text matches
    detail, path = match["detail"], (match["path"] or "").removeprefix(".")
    field = _FIELD.search(detail)
    if field:  # unknown or missing: the path ends at the object that should have it or should not
        path = f"{path}.{field[1]}" if path else field[1]
    return Invalid(code, detail, path=path or None)
