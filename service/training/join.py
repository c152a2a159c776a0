"""Join: served records and feedback become labelled impressions, in event time.

One join sees one partition, where a request and its feedback meet. The clock is the log's: an entry's milliseconds,
or what `advance` says of the whole log, never the wall's. An impression waits one attribution window for its click and
then closes, clicked or not; a positive does not close earlier, for that would bias calibration. Feedback that comes
before its impression waits one window for it. A record that comes more than a window after its ranking teaches
nothing: clicks may have come and gone. Pure: equal entries close in equal order, however they are chunked and however
often the clock is told.
"""

from array import array
from collections import Counter, deque
from collections.abc import Mapping
from typing import Literal

import numpy as np

from models.noise import seed_of
from models.types import Array
from service.errors import EventError
from service.events import Event, EventType, Served
from service.streams import Entry
from service.training import memory
from service.training.early import Early
from service.training.memory import ALL, NONE, UNCLICKED, Closing, Joined, Met, Order, Request, Window, opened

Mode = Literal["served", "events"]

REMEMBERED_MS = 3_600_000  # of a closed request: a scorer writes again, when it can, what Redis did not confirm
_UNSEEN, _CLOSED = UNCLICKED - 1, UNCLICKED - 2  # of a row, instead of when it was clicked


class Join:
    """Holds what waits in one partition.

    Args:
        window_ms: attribution window.
        mode: an item counts as shown when it is "served", or when impression "events" say so.
        max_pending: most rows that wait, and about the most ids of each kind that are remembered; the oldest give way.
    """

    def __init__(self, *, window_ms: int, mode: Mode, max_pending: int) -> None:
        self._window_ms, self._mode, self._max_pending = window_ms, mode, max_pending
        self._memory_ms = window_ms * (2 if mode == "served" else 3)  # from when it waits to where it is late
        self.now_ms = 0
        self.pending = 0  # rows of the requests
        # All in order of time. Plain dicts would search for their first key past all the deleted ones.
        self._requests: dict[str, Request] = {}  # with an open window
        self._closed: Met[int] = Met()  # hash of a request id -> when its last window closed
        self._ignored: Met[str] = Met()  # request id -> time; none of the requests
        self._windows: deque[Window] = deque()
        self._early = Early()
        self._seen: Met[str] = Met()  # event id -> time, of all of early and more
        self._closings: deque[Closing] = deque()  # not taken yet
        self._refused: list[tuple[Entry, EventError]] = []
        self._counts: Counter[str] = Counter()

    def serve(self, entry: Entry, served: Served) -> bool:
        """A served record. False where it counts for nothing: its request is known already, or it comes too late."""
        self.advance(entry.time_ms)
        if self._knows(served.request_id):
            self._counts["duplicate"] += 1
            return False
        self._ignored.pop(served.request_id, None)  # another lane may serve a request that is ours, too
        if served.time_ms < entry.time_ms - self._window_ms:
            self._counts["delayed"] += 1
            self._remember(served.request_id, self.now_ms)
            return False
        shown = self._mode == "served"
        clicks = array("q", [UNCLICKED if shown else _UNSEEN]) * len(served.item_ids)
        request = Request(served.request_id, self.now_ms, entry.payload, clicks)
        self._requests[request.id] = request
        self._windows.append(opened(entry, self.now_ms, request, ALL if shown else NONE))
        self.pending += len(clicks)
        self._settle(entry, request.id, "impression")
        self._settle(entry, request.id, "click")
        while self.pending > self._max_pending:
            self._counts["evicted"] += self._close(self._windows.popleft(), self.now_ms)
        return True

    def ignore(self, entry: Entry, request_id: str) -> None:
        """A request that is not for us: another lane's, or of no use. So is its feedback, unless ours comes, too."""
        self.advance(entry.time_ms)
        if not self._knows(request_id) and request_id not in self._ignored:
            self._ignored[request_id] = self.now_ms
            self._ignored.forget(self.now_ms - self._memory_ms, self._max_pending)

    def feedback(self, entry: Entry, event: Event) -> None:
        """An impression or a click."""
        self.advance(entry.time_ms)
        if event.id in self._seen:
            self._counts["duplicate"] += 1
            return
        self._seen[event.id] = self.now_ms
        if not self._apply(entry, entry, event):
            self._early.add(entry, event)
        if len(self._seen) > self._max_pending:
            self._forget()

    def advance(self, time_ms: int) -> None:
        """Moves the clock on, to a time before which no entry is still to come; closes and forgets what is over."""
        self.now_ms = max(self.now_ms, time_ms)
        ended = self.now_ms - self._window_ms
        while (oldest := self._early.oldest()) is not None and self._seen[oldest] < ended:
            self._close_before(self._seen[oldest] + 1)  # as a clock of small steps would: what closes makes it late
            self._give_up(oldest)
        self._close_before(ended)
        self._forget()

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
            **memory.pack_closed(self._closed),
            **memory.pack_times("ignored", self._ignored),
            **memory.pack_times("seen", self._seen),
            **memory.pack_events(self._early.all(), list(self._closings)),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues from `state`."""
        self.now_ms = int(state["now_ms"])
        requests = memory.unpack_requests(state)
        self._requests = {one.id: one for one in requests if one.windows}
        self._windows = deque(memory.unpack_windows(state, requests))
        early, closings = memory.unpack_events(state)
        self._ignored, self._seen = memory.unpack_times("ignored", state), memory.unpack_times("seen", state)
        self._closed = memory.unpack_closed(state, requests)
        self._early, self._closings = Early(early), deque(closings)
        self.pending = sum(len(request.clicks) for request in requests)

    def _knows(self, request_id: str) -> bool:
        return request_id in self._requests or seed_of(request_id) in self._closed

    def _close_before(self, time_ms: int) -> None:
        while self._windows and self._windows[0].time_ms < time_ms:
            window = self._windows.popleft()
            self._close(window, window.time_ms + self._window_ms + 1)

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
            del self._requests[request.id]
            self._remember(request.id, time_ms)
        return len(rows)

    def _remember(self, request_id: str, time_ms: int) -> None:
        self._closed[seed_of(request_id)] = time_ms
        self._closed.forget(0, self._max_pending)

    def _forget(self) -> None:
        for event_id in self._seen.forget(self.now_ms - self._memory_ms, self._max_pending):
            self._give_up(event_id)
        self._ignored.forget(self.now_ms - self._memory_ms, self._max_pending)
        self._closed.forget(self.now_ms - max(self._window_ms, REMEMBERED_MS), self._max_pending)

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
        if self._mode == "served" and event.type == "impression":
            return "ignored"
        request = self._requests.get(event.request_id)
        if request is None:
            return self._without(event.request_id)
        row = request.row(event.item_id)
        if row is None:
            return "unknown_item"
        if request.clicks[row] == _CLOSED:
            return "late"
        return self._shown(now, request, row) if event.type == "impression" else self._clicked(event, request, row)

    def _without(self, request_id: str) -> str | None:
        """The result of feedback on a request that is not open. One that others served may yet be ours, for a while."""
        if seed_of(request_id) in self._closed:
            return "late"
        ignored_ms = self._ignored.get(request_id, self.now_ms)
        return "ignored" if ignored_ms < self.now_ms - self._window_ms else None

    def _shown(self, now: Entry, request: Request, row: int) -> str:
        if request.clicks[row] != _UNSEEN:
            return "duplicate"
        request.clicks[row] = UNCLICKED
        self._windows.append(opened(now, self.now_ms, request, row))
        self._settle(now, request.id, "click")
        return "matched"

    def _clicked(self, event: Event, request: Request, row: int) -> str | None:
        if request.clicks[row] == _UNSEEN:
            return None
        if request.clicks[row] != UNCLICKED:
            return "duplicate"
        request.clicks[row] = self._seen[event.id]
        return "matched"

    def _settle(self, now: Entry, request_id: str, type: EventType) -> None:
        """Applies what came early for this request."""
        for entry, event in self._early.of(request_id, type):
            if self._apply(now, entry, event):
                self._early.pop(event.id)

    def _give_up(self, event_id: str) -> None:
        """Ends the wait of early feedback, if it does wait."""
        if event_id not in self._early:
            return
        entry, event = self._early.pop(event_id)
        result = "ignored" if event.request_id in self._ignored else "unknown_request"
        result = "late" if seed_of(event.request_id) in self._closed else result  # its record came, and was delayed
        if result == "unknown_request":
            self._refused.append((entry, EventError(result, f"no impression of request {event.request_id!r} came")))
        self._counts[result] += 1
