"""Our own served and feedback streams as logged impressions, joined by the trainer's own join."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import msgspec
import redis
from msgspec import Meta
from redis.exceptions import RedisError

from models.spec import FeatureSpec, SpecError
from service.connections import connect
from service.errors import EventError, ServiceError
from service.events import Event, Served, decode_served
from service.settings import Settings, SettingsError
from service.streams import FIELD, LogReader, StreamNames
from service.training.__main__ import redis_url
from service.training.intake import Intake
from service.training.join import Join
from service.training.joins import Joins
from service.training.memory import UNCLICKED, Closed

_CHUNK = 1_000  # entries
_Entries = list[tuple[bytes, dict[bytes, bytes]]]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One logged impression, as `agerank ope --export` writes it and `--log` reads it.

    What the service logs is complete but for `model` and `value`; `target` is that of the greedy order.
    """

    reward: float
    propensity: Annotated[float, Meta(gt=0, le=1)]
    target: Annotated[float, Meta(ge=0, le=1)]
    model: float | None = None
    value: float | None = None
    request_id: str = ""
    item_id: str = ""
    strategy: str = ""
    version: int = 0
    p_click: float | None = None


class LogFileError(ValueError):
    """A line of an exported file cannot be used; the text names it."""


class Found(NamedTuple):
    """What the streams hold."""

    lines: list[Line]
    counts: Counter[str]  # why the other impressions are of no use


@contextmanager
def connected(settings: Settings) -> Iterator[redis.Redis]:
    """A client of the settings' server. An embedded one is started where it does not run."""
    with ExitStack() as stack:
        yield stack.enter_context(connect(redis_url(settings, stack), name="agerank-ope"))


def impressions(settings: Settings, client: redis.Redis) -> Found:
    """Everything in the streams whose attribution window is over.

    Only requests that show one item have a greedy target: a propensity is that of being among the shown, and of a
    longer slate the log does not say which of its items greedy would have shown elsewhere in it.

    Raises:
        SettingsError: the feature spec cannot be read.
    """
    try:
        spec = FeatureSpec.from_toml(settings.feature_text())
    except SpecError as error:
        raise SettingsError(f"{settings.features}: {error}") from None
    window_ms, pending = round(settings.attribution_window_s * 1000), settings.max_pending
    joins = Joins(partial(Join, window_ms=window_ms, mode=settings.impressions, max_pending=pending))
    reader = LogReader(client, StreamNames(settings.redis_prefix, settings.partitions), count=_CHUNK)
    intake, positions, found = Intake(spec, settings.lane), dict[str, str](), Found([], Counter())
    while entries := reader.read(positions, block_ms=1):
        for entry, message in zip(entries, intake.read(entries), strict=True):
            positions[entry.stream] = entry.position
            join = joins.of(entry.stream)
            if isinstance(message, Event):
                join.feedback(entry, message)
            elif isinstance(message, Served):
                join.serve(entry, message)
            else:
                found.counts["unusable entry" if message.error else "another lane's"] += 1
                if message.request_id is not None:
                    join.ignore(entry, message.request_id)
        _take(found, joins.take(joins.now_ms - 1).closed)
    if joins.pending:
        found.counts["still waits for its click"] += joins.pending
    return found


def find_served(settings: Settings, client: redis.Redis, request_id: str) -> Served | None:
    """The served record of a request, the newest of that id; None where the stream does not hold it any more."""
    stream, newest = StreamNames(settings.redis_prefix, settings.partitions).served(request_id), "+"
    wanted = request_id.encode()
    while reply := cast(_Entries, client.xrevrange(stream, max=newest, min="-", count=_CHUNK)):
        for _, fields in reply:
            payload = fields.get(FIELD, b"")
            if wanted in payload and (served := _decoded(payload)) and served.request_id == request_id:
                return served
        newest = f"({reply[-1][0].decode()}"
    return None


def read_lines(path: Path) -> list[Line]:
    """An exported file. Raises LogFileError with the number of the first line that cannot be used, and OSError."""
    lines: dict[int, Line] = {}
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                try:
                    lines[number] = _decoder.decode(text)
                except msgspec.MsgspecError as error:
                    raise LogFileError(f"{path.name}:{number}: {error}") from None
    if not lines:
        raise LogFileError(f"{path.name} has no lines")
    bare = [number for number, line in lines.items() if line.model is None or line.value is None]
    if bare and any(line.model is not None or line.value is not None for line in lines.values()):
        raise LogFileError(f"{path.name}:{bare[0]}: a model is `model` and `value` in every line; one is missing here")
    return list(lines.values())


def write_lines(lines: list[Line], path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(msgspec.json.encode(line) + b"\n" for line in lines)


_decoder = msgspec.json.Decoder(Line)


def _decoded(payload: bytes) -> Served | None:
    try:
        return decode_served(payload)
    except EventError:
        return None


def _take(found: Found, closed: list[Closed]) -> None:
    for one in closed:
        served = one.served
        if served.propensity is None:
            found.counts[f"no propensity: strategy {served.strategy}"] += len(one.rows)
        elif len(served.item_ids) > 1:
            found.counts["shown together with others"] += len(one.rows)
        else:
            found.lines.append(
                Line(
                    reward=float(one.click_ms[0] != UNCLICKED),
                    propensity=served.propensity[0],
                    target=float(not served.explored[0]),
                    request_id=served.request_id,
                    item_id=served.item_ids[0],
                    strategy=served.strategy,
                    version=served.version,
                    p_click=served.p_click[0],
                )
            )


#: What reading the streams may raise, besides SettingsError.
UNREADABLE = (RedisError, ServiceError, OSError)
