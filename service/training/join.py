"""Join: served records and feedback become labelled impressions, in event time.

One join sees one partition, where a request and its feedback meet. The clock is the log's: an entry's milliseconds,
or what `advance` says of the whole log, never the wall's. An impression waits one attribution window for its click and
then closes, clicked or not; a positive does not close earlier, for that would bias calibration. Feedback that comes
before its impression waits one window for it. Pure: equal entries close in equal order, however they are chunked and
however often the clock is told.
"""

from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from models.types import Array
from service.errors import EventError
from service.events import Event, Served
from service.streams import Entry
from service.training import memory
from service.training.memory import ALL, NONE, UNCLICKED, Closed, Closing, Order, Request, Window, opened

Mode = Literal["served", "events"]

_UNSEEN, _CLOSED = UNCLICKED - 1, UNCLICKED - 2  # of a row, instead of when it was clicked


class Joined(NamedTuple):
    """What the join made of the entries since it was last asked."""

    closed: list[Closed]  # in order
    refused: list[tuple[Entry, EventError]]  # feedback on what was never shown: unknown_request, unknown_item
    counts: Counter[str]  # result -> events, or impressions where the result is evicted


class Join:
    """Holds what waits in one partition.

    Args:
        window_ms: attribution window.
        mode: an item counts as shown when it is "served", or when impression "events" say so.
        max_pending: most rows that wait, and about the most ids of each kind that are remembered; the oldest give way.
    """

    def __init__(self, *, window_ms: int, mode: Mode, max_pending: int) -> None:
        self._window_ms, self._mode, self._max_pending = window_ms, mode, max_pending
        # A request is remembered for its impressions, for their clicks, and as long again to tell late from unknown.
        self._memory_ms = window_ms * (2 if mode == "served" else 3)
        self.now_ms = 0
        self.pending = 0  # rows of requests with an open window
        # All six in order of time. Plain dicts would search for their first key past all the deleted ones.
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._ignored: OrderedDict[str, int] = OrderedDict()  # request id -> time; none of the requests
        self._windows: deque[Window] = deque()
        self._early: OrderedDict[str, tuple[Entry, Event]] = OrderedDict()  # by event id
        self._seen: OrderedDict[str, int] = OrderedDict()  # event id -> time, of all of early and more
        self._closings: deque[Closing] = deque()  # not taken yet
        self._early_of: dict[str, list[str]] = {}  # request id -> event ids
        self._refused: list[tuple[Entry, EventError]] = []
        self._counts: Counter[str] = Counter()

    def serve(self, entry: Entry, served: Served) -> bool:
        """A served record. False where its request is known already: the first one counts."""
        self.advance(entry.time_ms)
        if served.request_id in self._requests or served.request_id in self._ignored:
            self._counts["duplicate"] += 1
            return False
        rows = len(served.item_ids)
        shown = self._mode == "served"
        clicks = array("q", [UNCLICKED if shown else _UNSEEN]) * rows
        request = Request(served.request_id, self.now_ms, entry.payload, clicks)
        self._requests[request.id] = request
        self._windows.append(opened(entry, self.now_ms, request, ALL if shown else NONE))
        self.pending += rows
        self._settle(entry, request.id)
        while self.pending > self._max_pending:
            self._counts["evicted"] += self._close(self._windows.popleft(), self.now_ms)
        return True

    def ignore(self, entry: Entry, request_id: str) -> None:
        """A request that is not for us: another lane's, or of no use. Its feedback is ignored, too."""
        self.advance(entry.time_ms)
        if request_id not in self._requests and request_id not in self._ignored:
            self._ignored[request_id] = self.now_ms
            self._settle(entry, request_id)

    def feedback(self, entry: Entry, event: Event) -> None:
        """An impression or a click."""
        self.advance(entry.time_ms)
        if event.id in self._seen:
            self._counts["duplicate"] += 1
            return
        self._seen[event.id] = self.now_ms
        if not self._apply(entry, entry, event):
            self._early[event.id] = entry, event
            self._early_of.setdefault(event.request_id, []).append(event.id)

    def advance(self, time_ms: int) -> None:
        """Moves the clock on, and closes and forgets what is over.

        Args:
            time_ms: no entry of an earlier time is still to come.
        """
        self.now_ms = max(self.now_ms, time_ms)
        ended = self.now_ms - self._window_ms
        while self._windows and self._windows[0].time_ms < ended:
            window = self._windows.popleft()
            self._close(window, window.time_ms + self._window_ms + 1)
        while self._early and self._seen[next(iter(self._early))] < ended:
            self._give_up(next(iter(self._early)))
        while self._seen and self._outlived(next(iter(self._seen.values())), len(self._seen)):
            self._give_up(next(iter(self._seen)))
            self._seen.popitem(last=False)
        while self._requests:
            oldest = next(iter(self._requests.values()))
            if oldest.windows or not self._outlived(oldest.time_ms, len(self._requests)):
                break
            self._requests.popitem(last=False)
        while self._ignored and self._outlived(next(iter(self._ignored.values())), len(self._ignored)):
            self._ignored.popitem(last=False)

    def take(self, until_ms: int) -> Joined:
        """What has closed up to `until_ms`, and what else has come of everything since the last call.

        Args:
            until_ms: all entries of the log up to this time are known, those of other partitions, too.
        """
        self.advance(until_ms)
        closed = []
        while self._closings and self._closings[0].order.time_ms <= until_ms:
            closed.append(self._closings.popleft().closed())
        joined = Joined(closed, self._refused, self._counts)
        self._refused, self._counts = [], Counter()
        return joined

    def state(self) -> dict[str, Array]:
        """All that the future depends on; `take` comes first."""
        requests = list(self._requests.values())
        return {
            "now_ms": np.array(self.now_ms, dtype=np.int64),
            **memory.pack_requests(requests),
            **memory.pack_windows(self._windows, requests),
            **memory.pack_times("ignored", self._ignored),
            **memory.pack_times("seen", self._seen),
            **memory.pack_events(list(self._early.values()), list(self._closings)),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues from `state`."""
        self.now_ms = int(state["now_ms"])
        requests = memory.unpack_requests(state)
        self._requests = OrderedDict((one.id, one) for one in requests)
        self._windows = deque(memory.unpack_windows(state, requests))
        early, closings = memory.unpack_events(state)
        self._early = OrderedDict((event.id, (entry, event)) for entry, event in early)
        self._ignored, self._seen = memory.unpack_times("ignored", state), memory.unpack_times("seen", state)
        self._closings = deque(closings)
        self.pending = sum(len(request.clicks) for request in requests)
        self._early_of = {}
        for _, event in early:
            self._early_of.setdefault(event.request_id, []).append(event.id)

    def _outlived(self, time_ms: int, count: int) -> bool:
        """Whether the oldest of `count` memories has served its time."""
        return time_ms < self.now_ms - self._memory_ms or count > self._max_pending

    def _close(self, window: Window, time_ms: int) -> int:
        """Closes a window. Returns how many rows that settled."""
        request, clicks = window.request, window.request.clicks
        if window.row == NONE:
            rows = [row for row, click in enumerate(clicks) if click == _UNSEEN]
        else:
            rows = list(range(len(clicks))) if window.row == ALL else [window.row]
            place = Order(time_ms, window.time_ms, window.seq, window.stream)
            self._closings.append(Closing(request.payload, rows, [clicks[row] for row in rows], place))
        for row in rows:
            clicks[row] = _CLOSED
        request.windows -= 1
        if not request.windows:
            self.pending -= len(clicks)
            request.payload, request.clicks, request.item_ids = b"", array("q"), []
        return len(rows)

    def _apply(self, now: Entry, entry: Entry, event: Event) -> bool:
        """Counts the event's result. False where it has none yet and must wait.

        Args:
            now: the entry that made us look.
        """
        result = self._result(now, event)
        if result == "unknown_item":
            text = f"item {event.item_id!r} was not shown in request {event.request_id!r}"
            self._refused.append((entry, EventError(result, text)))
        if result is not None:
            self._counts[result] += 1
        return result is not None

    def _result(self, now: Entry, event: Event) -> str | None:
        request = self._requests.get(event.request_id)
        if event.request_id in self._ignored or (self._mode == "served" and event.type == "impression"):
            return "ignored"
        if request is None:
            return None
        if not request.windows:
            return "late"
        row = request.row(event.item_id)
        if row is None:
            return "unknown_item"
        if request.clicks[row] == _CLOSED:
            return "late"
        return self._shown(now, request, row) if event.type == "impression" else self._clicked(event, request, row)

    def _shown(self, now: Entry, request: Request, row: int) -> str:
        if request.clicks[row] != _UNSEEN:
            return "duplicate"
        request.clicks[row] = UNCLICKED
        self._windows.append(opened(now, self.now_ms, request, row))
        self._settle(now, request.id)
        return "matched"

    def _clicked(self, event: Event, request: Request, row: int) -> str | None:
        if request.clicks[row] == _UNSEEN:
            return None
        if request.clicks[row] != UNCLICKED:
            return "duplicate"
        request.clicks[row] = self._seen[event.id]
        return "matched"

    def _settle(self, now: Entry, request_id: str) -> None:
        """Applies what came early for this request: impressions first, for clicks may wait for them."""
        waiting = self._early_of.pop(request_id, [])
        for event_id in sorted(waiting, key=lambda one: self._early[one][1].type == "click"):
            if self._apply(now, *self._early[event_id]):
                del self._early[event_id]
            else:
                self._early_of.setdefault(request_id, []).append(event_id)

    def _give_up(self, event_id: str) -> None:
        """Ends the wait of early feedback, if it does wait."""
        if event_id not in self._early:
            return
        entry, event = self._early.pop(event_id)
        others = [one for one in self._early_of.pop(event.request_id) if one != event_id]
        if others:
            self._early_of[event.request_id] = others
        text = f"no impression of request {event.request_id!r} came"
        self._refused.append((entry, EventError("unknown_request", text)))
        self._counts["unknown_request"] += 1
