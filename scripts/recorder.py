"""Recorder: impressions of a historical log become the entries that live traffic would have left on the streams."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from models.features import Encoder
from models.noise import seed_of
from models.spec import FeatureSpec
from models.types import Array
from scripts.history import Logged
from service.events import Event, EventType, Served, encode, from_millis
from service.streams import StreamNames

#: What the strategy of these records is called. Metrics know it as "other": it is not one of ours.
STRATEGY = "logged"

REMEMBERED = 100_000  # encoded users and items; some 100 MB where a spec has many fields

Entries = list[tuple[str, bytes, str | None]]  # what `service.appends.append_batch` takes


class Recorder:
    """Dates every entry itself: its position is the time of the log.

    Args:
        spec: of the features.
        names: of the streams.
        lane: whose served records these are.
        confirm: write impression events, too, for a trainer that waits for them.
    """

    def __init__(self, *, spec: FeatureSpec, names: StreamNames, lane: str, confirm: bool) -> None:
        self._encoder, self._names, self._lane, self._confirm = Encoder(spec), names, lane, confirm
        self._spec_hash = spec.hash  # computed at each asking
        self._encoded: dict[str, tuple[bytes, bytes]] = {}
        self._shown: Counter[str] = Counter()
        self._time_ms, self._sequence = 0, 0

    def entries(self, logged: Logged) -> Entries:
        """The served record of one impression and its feedback, in order; impressions must come in order of time.

        The click bears the time of its impression, for logs seldom know better.

        Raises:
            FeatureError: a value does not fit its field.
        """
        user_id, user, context, item_id, item = logged.user_id, logged.user, logged.context, logged.item_id, logged.item
        context_index, context_weight = self._once(
            (user_id, user, context),
            lambda: self._encoder.context(user_id=user_id, user=user, context=context),
        )
        item_index, item_weight = self._once((item_id, item), lambda: self._encoder.items([item_id], [item]))
        position = self._next(logged.time_ms)
        request_id = f"log-{position}"
        served = Served(
            request_id=request_id,
            time_ms=logged.time_ms,
            lane=self._lane,
            strategy=STRATEGY,
            version=0,
            lambda_=0.0,
            seed=seed_of(request_id),
            spec_hash=self._spec_hash,
            bucket=None,
            context_index=context_index,
            context_weight=context_weight,
            item_ids=[logged.item_id],
            item_index=item_index,
            item_weight=item_weight,
            p_click=[logged.p_click],
            score=[logged.p_click],
            explored=[False],
            impressions=[self._shown[logged.item_id]],
            propensity=None,
        )
        self._shown[logged.item_id] += 1
        entries: Entries = [(self._names.served(request_id), encode(served), position)]
        feedback: list[tuple[EventType, bool]] = [("impression", self._confirm), ("click", logged.click)]
        for kind in (kind for kind, wanted in feedback if wanted):
            event = Event(
                id=f"{request_id}:{kind}",
                type=kind,
                request_id=request_id,
                item_id=logged.item_id,
                time=from_millis(logged.time_ms),
            )
            entries.append((self._names.feedback(request_id), encode(event), self._next(logged.time_ms)))
        return entries

    def _once(self, values: tuple[Any, ...], encoded: Callable[[], tuple[Array, Array]]) -> tuple[bytes, bytes]:
        """Index and weight, encoded once for equal values: the same users and items come again and again."""
        key = repr(values)  # tells 1 from "1" and from True
        if key not in self._encoded:
            if len(self._encoded) == REMEMBERED:
                self._encoded.clear()
            index, weight = encoded()
            self._encoded[key] = index.tobytes(), weight.tobytes()
        return self._encoded[key]

    def _next(self, time_ms: int) -> str:
        """Positions ascend over all streams: that is the order in which the trainer reads them."""
        self._sequence = self._sequence + 1 if time_ms == self._time_ms else 0
        self._time_ms = time_ms
        return f"{time_ms}-{self._sequence}"
