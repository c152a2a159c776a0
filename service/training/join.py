"""Join: served records and feedback become labelled impressions, in event time.

The clock is the log's: an entry's milliseconds, never the wall's. An impression waits one attribution window for its
click and then closes, clicked or not; a positive does not close earlier, for that would bias calibration. Feedback that
comes before its impression waits one window for it. Pure: equal entries give equal results however they are chunked.
"""

from collections import Counter, OrderedDict, deque
from typing import Literal, NamedTuple

import msgspec

from service.errors import EventError
from service.events import Event, Served
from service.streams import Entry

Mode = Literal["served", "events"]

#: Of a row: when it was first clicked (>= 0), or one of these.
UNCLICKED, _UNSEEN, _CLOSED = -1, -2, -3


class Closed(NamedTuple):
    """Impressions of one request whose window has closed."""

    served: Served
    rows: list[int]  # of the slate
    time_ms: int
    click_ms: list[int]  # of each row's first click, UNCLICKED where there was none


class Joined(NamedTuple):
    """What the join made of the entries since it was last asked."""

    closed: list[Closed]  # in the order of their impressions
    refused: list[tuple[Entry, EventError]]  # feedback on what was never shown: unknown_request, unknown_item
    counts: Counter[str]  # result -> events, or impressions where the result is evicted


class _Request(msgspec.Struct, array_like=True):
    """A served record while it waits, and after that the memory that there was one."""

    time_ms: int
    served: Served | None  # until the last window has closed
    clicks: list[int]  # by row, as long as served is there
    windows: int  # open
    ignored: bool = False


class _Window(msgspec.Struct, array_like=True):
    """Rows that close together, one attribution window after time_ms. Without rows: the wait for impression events."""

    time_ms: int
    request_id: str
    rows: list[int]


class _State(msgspec.Struct, array_like=True):
    """A join as it travels; everything in order of time."""

    now_ms: int
    requests: list[tuple[str, _Request]]
    windows: list[_Window]
    early: list[tuple[Entry, Event]]
    seen: list[tuple[str, int]]  # event id, time


class Join:
    """Holds what waits.

    Args:
        window_ms: attribution window.
        mode: an item counts as shown when it is "served", or when impression "events" say so.
        max_pending: most rows that wait, and about the most ids of each kind that are remembered; the oldest give way.
    """

    def __init__(self, *, window_ms: int, mode: Mode, max_pending: int) -> None:
        self._window_ms, self._mode, self._max_pending = window_ms, mode, max_pending
        # A request is remembered for its impressions, for their clicks, and as long again to tell late from unknown.
        self._memory_ms = window_ms * (2 if mode == "served" else 3)
        self._now_ms = 0
        self.pending = 0  # rows of requests with an open window
        # All four in order of time. Plain dicts would search for their first key past all the deleted ones.
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._windows: deque[_Window] = deque()
        self._early: OrderedDict[str, tuple[Entry, Event]] = OrderedDict()  # by event id
        self._seen: OrderedDict[str, int] = OrderedDict()  # event id -> time, of all of early and more
        self._early_of: dict[str, list[str]] = {}  # request id -> event ids
        self._joined = Joined([], [], Counter())

    def serve(self, entry: Entry, served: Served) -> bool:
        """A served record. False where its request is known already: the first one counts."""
        self._advance(entry)
        if served.request_id in self._requests:
            self._joined.counts["duplicate"] += 1
            return False
        rows = len(served.item_ids)
        shown = self._mode == "served"
        clicks = [UNCLICKED if shown else _UNSEEN] * rows
        self._requests[served.request_id] = _Request(self._now_ms, served, clicks, 1)
        self._windows.append(_Window(self._now_ms, served.request_id, list(range(rows)) if shown else []))
        self.pending += rows
        self._settle(served.request_id)
        while self.pending > self._max_pending:
            self._joined.counts["evicted"] += self._close(self._windows.popleft())
        return True

    def ignore(self, entry: Entry, request_id: str) -> None:
        """A request that is not for us: another lane's, or of no use. Its feedback is ignored, too."""
        self._advance(entry)
        if request_id not in self._requests:
            self._requests[request_id] = _Request(self._now_ms, None, [], 0, ignored=True)
            self._settle(request_id)

    def feedback(self, entry: Entry, event: Event) -> None:
        """An impression or a click."""
        self._advance(entry)
        if event.id in self._seen:
            self._joined.counts["duplicate"] += 1
            return
        self._seen[event.id] = self._now_ms
        if not self._apply(entry, event):
            self._early[event.id] = entry, event
            self._early_of.setdefault(event.request_id, []).append(event.id)

    def take(self) -> Joined:
        """What has come of everything since the last call."""
        taken, self._joined = self._joined, Joined([], [], Counter())
        return taken

    def state(self) -> bytes:
        """All that the future depends on; `take` comes first."""
        waiting = list(self._windows), list(self._early.values())
        return msgspec.msgpack.encode(
            _State(self._now_ms, list(self._requests.items()), *waiting, list(self._seen.items()))
        )

    def restore(self, content: bytes) -> None:
        """Continues from `state`."""
        state = msgspec.msgpack.decode(content, type=_State)
        self._now_ms = state.now_ms
        self._requests, self._windows = OrderedDict(state.requests), deque(state.windows)
        self._early = OrderedDict((event.id, (entry, event)) for entry, event in state.early)
        self._seen = OrderedDict(state.seen)
        self.pending = sum(len(request.clicks) for request in self._requests.values())
        self._early_of = {}
        for _, event in state.early:
            self._early_of.setdefault(event.request_id, []).append(event.id)

    def _advance(self, entry: Entry) -> None:
        """Moves the clock, and closes and forgets what is over."""
        self._now_ms = max(self._now_ms, entry.time_ms)
        ended = self._now_ms - self._window_ms
        while self._windows and self._windows[0].time_ms < ended:
            self._close(self._windows.popleft())
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

    def _outlived(self, time_ms: int, count: int) -> bool:
        """Whether the oldest of `count` memories has served its time."""
        return time_ms < self._now_ms - self._memory_ms or count > self._max_pending

    def _close(self, window: _Window) -> int:
        """Closes a window. Returns how many rows that settled."""
        request = self._requests[window.request_id]
        assert request.served is not None, "it is kept until its last window has closed"
        rows, clicks = window.rows, request.clicks
        if rows:
            self._joined.closed.append(Closed(request.served, rows, window.time_ms, [clicks[row] for row in rows]))
        else:
            rows = [row for row, click in enumerate(clicks) if click == _UNSEEN]
        for row in rows:
            clicks[row] = _CLOSED
        request.windows -= 1
        if not request.windows:
            self.pending -= len(request.clicks)
            request.served, request.clicks = None, []
        return len(rows)

    def _apply(self, entry: Entry, event: Event) -> bool:
        """Counts the event's result. False where it has none yet and must wait."""
        result = self._result(event)
        if result == "unknown_item":
            text = f"item {event.item_id!r} was not shown in request {event.request_id!r}"
            self._joined.refused.append((entry, EventError(result, text)))
        if result is not None:
            self._joined.counts[result] += 1
        return result is not None

    def _result(self, event: Event) -> str | None:
        request = self._requests.get(event.request_id)
        if self._mode == "served" and event.type == "impression":
            return "ignored"
        if request is None:
            return None
        if request.served is None:
            return "ignored" if request.ignored else "late"
        if event.item_id not in request.served.item_ids:
            return "unknown_item"
        row = request.served.item_ids.index(event.item_id)
        if request.clicks[row] == _CLOSED:
            return "late"
        return self._shown(event, request, row) if event.type == "impression" else self._clicked(event, request, row)

    def _shown(self, event: Event, request: _Request, row: int) -> str:
        if request.clicks[row] != _UNSEEN:
            return "duplicate"
        request.clicks[row] = UNCLICKED
        request.windows += 1
        self._windows.append(_Window(self._now_ms, event.request_id, [row]))
        self._settle(event.request_id)
        return "matched"

    def _clicked(self, event: Event, request: _Request, row: int) -> str | None:
        if request.clicks[row] == _UNSEEN:
            return None
        if request.clicks[row] != UNCLICKED:
            return "duplicate"
        request.clicks[row] = self._seen[event.id]
        return "matched"

    def _settle(self, request_id: str) -> None:
        """Applies what came early for this request: impressions first, for clicks may wait for them."""
        waiting = self._early_of.pop(request_id, [])
        for event_id in sorted(waiting, key=lambda one: self._early[one][1].type == "click"):
            if self._apply(*self._early[event_id]):
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
        self._joined.refused.append((entry, EventError("unknown_request", text)))
        self._joined.counts["unknown_request"] += 1
