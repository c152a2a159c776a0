"""A join that knows no queue: it looks at everything, every time."""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from service.events import Event, Served
from service.training.join import REMEMBERED_MS, Mode

Record = tuple[int, Served | Event | str]  # (time, message); a str is the id of a request to ignore
Outcome = tuple[list[tuple[str, str, int, int | None]], list[tuple[str, str]], Counter[str]]


@dataclass
class Window:
    """Reference: an impression, or (item None) the wait of a request for impressions."""

    time_ms: int
    item: str | None
    click_ms: int | None = None
    closed: bool = False


@dataclass
class Request:
    id: str
    items: str = ""
    windows: list[Window] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return all(window.closed for window in self.windows)


class Reference:
    """What the docstrings of the join say, in as few words as possible."""

    def __init__(self, window_ms: int, mode: Mode, max_pending: int) -> None:
        self.window_ms, self.mode, self.most = window_ms, mode, max_pending
        self.memory_ms = window_ms * (2 if mode == "served" else 3)
        self.now_ms = 0
        self.requests: list[Request] = []  # open ones
        self.past: list[tuple[int, str]] = []
        self.ignored: list[tuple[int, str]] = []
        self.windows: list[tuple[Request, Window]] = []  # of all time, in order of opening
        self.waiting: list[tuple[int, str, Event]] = []
        self.seen: list[tuple[int, str]] = []
        self.closed: list[tuple[str, str, int, int | None]] = []
        self.refused: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()

    def feed(self, records: list[Record]) -> Outcome:
        for number, (time_ms, message) in enumerate(records):
            self.pass_time(time_ms)
            if isinstance(message, Event):
                self.feedback(f"{time_ms}-{number}", message)
            elif isinstance(message, Served):
                self.serve(message)
            elif not self.knows(message) and message not in [other for _, other in self.ignored]:
                self.ignored = [*self.ignored, (time_ms, message)][-self.most :]
            self.retry(f"{time_ms}-{number}")
            self.forget_seen()
            while sum(len(request.items) for request in self.requests) > self.most:
                oldest = next(pair for pair in self.windows if not pair[1].closed)
                self.counts["evicted"] += self.close(oldest, time_ms)
        return self.closed, self.refused, self.counts

    def pass_time(self, time_ms: int) -> None:
        """In steps: what happens at one time sees nothing of what happens later."""
        starts = [window.time_ms for _, window in self.windows if not window.closed] + [one[0] for one in self.waiting]
        for step_ms in sorted({time_ms, *(min(start + self.window_ms + 1, time_ms) for start in starts)}):
            self.step(step_ms)

    def step(self, time_ms: int) -> None:
        self.now_ms = time_ms
        for pair in self.windows:
            if not pair[1].closed and pair[1].time_ms + self.window_ms < time_ms:
                self.close(pair, pair[1].time_ms + self.window_ms + 1)
        self.give_up([one for one in self.waiting if one[0] + self.window_ms < time_ms])
        self.forget_seen()
        self.ignored = [one for one in self.ignored if one[0] + self.memory_ms >= time_ms]
        self.past = [one for one in self.past if one[0] + max(self.window_ms, REMEMBERED_MS) >= time_ms]

    def forget_seen(self) -> None:
        while self.seen and (self.seen[0][0] + self.memory_ms < self.now_ms or len(self.seen) > self.most):
            _, forgotten = self.seen.pop(0)
            self.give_up([one for one in self.waiting if one[2].id == forgotten])

    def remember(self, time_ms: int, request_id: str) -> None:
        self.past = [*self.past, (time_ms, request_id)][-self.most :]

    def give_up(self, hopeless: list[tuple[int, str, Event]]) -> None:
        for one in hopeless:
            self.waiting.remove(one)
            if one[2].request_id in [other for _, other in self.past]:
                self.counts["late"] += 1
            elif one[2].request_id in [other for _, other in self.ignored]:
                self.counts["ignored"] += 1
            else:
                self.refused.append((one[1], "unknown_request"))
                self.counts["unknown_request"] += 1

    def close(self, pair: tuple[Request, Window], time_ms: int) -> int:
        request, window = pair
        window.closed = True
        if request.over:
            self.requests.remove(request)
            self.remember(time_ms, request.id)
        if window.item is not None:
            self.closed.append((request.id, window.item, window.time_ms, window.click_ms))
            return 1
        never_shown = set(request.items) - {other.item for other in request.windows}
        return len(never_shown)

    def knows(self, request_id: str) -> bool:
        return request_id in [*(one.id for one in self.requests), *(other for _, other in self.past)]

    def serve(self, message: Served) -> None:
        if self.knows(message.request_id):
            self.counts["duplicate"] += 1
            return
        self.ignored = [one for one in self.ignored if one[1] != message.request_id]
        if message.time_ms + self.window_ms < self.now_ms:
            self.counts["delayed"] += 1
            self.remember(self.now_ms, message.request_id)
            return
        request = Request(message.request_id, "".join(message.item_ids))
        self.requests.append(request)
        for item in request.items if self.mode == "served" else [None]:
            self.open(request, item)

    def open(self, request: Request, item: str | None) -> None:
        window = Window(self.now_ms, item)
        request.windows.append(window)
        self.windows.append((request, window))

    def feedback(self, position: str, event: Event) -> None:
        if any(event.id == other for _, other in self.seen):
            self.counts["duplicate"] += 1
            return
        self.seen.append((self.now_ms, event.id))
        self.waiting.append((self.now_ms, position, event))

    def retry(self, newest: str) -> None:
        """Impressions first. What has waited does not become late or another's: it waits to its end."""
        for since, position, event in sorted(self.waiting, key=lambda one: one[2].type == "click"):
            result = self.result(since, event)
            if result is not None and (result not in ("late", "ignored") or position == newest):
                self.waiting.remove((since, position, event))
                self.counts[result] += 1
                if result == "unknown_item":
                    self.refused.append((position, result))

    def result(self, since: int, event: Event) -> str | None:
        if self.mode == "served" and event.type == "impression":
            return "ignored"
        request = next((one for one in self.requests if one.id == event.request_id), None)
        if request is None:
            if event.request_id in [other for _, other in self.past]:
                return "late"
            others = [time_ms for time_ms, other in self.ignored if other == event.request_id]
            return "ignored" if others and others[0] + self.window_ms < self.now_ms else None
        if event.item_id not in request.items:
            return "unknown_item"
        shown = next((window for window in request.windows if window.item == event.item_id), None)
        if (shown or request.windows[0]).closed:
            return "late"
        return self.result_of_open(since, event, request, shown)

    def result_of_open(self, since: int, event: Event, request: Request, shown: Window | None) -> str | None:
        if event.type == "impression":
            if shown is None:
                self.open(request, event.item_id)
            return "duplicate" if shown else "matched"
        if shown is None:
            return None
        repeated = shown.click_ms is not None
        shown.click_ms = shown.click_ms if repeated else since
        return "duplicate" if repeated else "matched"


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
