"""Feedback that came before its impression, while it waits."""

from collections import OrderedDict
from collections.abc import Iterable

from service.events import Event, EventType
from service.streams import Entry

Waiting = tuple[Entry, Event]


class Early:
    """By event id, in order of time, and by request.

    Args:
        waiting: entries and their events, in order of time.
    """

    def __init__(self, waiting: Iterable[Waiting] = ()) -> None:
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._of: dict[str, dict[str, None]] = {}  # request id -> event ids, as an ordered set
        for entry, event in waiting:
            self.add(entry, event)

    def add(self, entry: Entry, event: Event) -> None:
        """The newest."""
        self._waiting[event.id] = entry, event
        self._of.setdefault(event.request_id, {})[event.id] = None

    def oldest(self) -> str | None:
        """Its event id."""
        return next(iter(self._waiting), None)

    def of(self, request_id: str, type: EventType) -> list[Waiting]:
        """Those of a request and of a type."""
        waiting = (self._waiting[event_id] for event_id in self._of.get(request_id, ()))
        return [one for one in waiting if one[1].type == type]

    def all(self) -> list[Waiting]:
        """In order."""
        return list(self._waiting.values())

    def pop(self, event_id: str) -> Waiting:
        """It waits no longer."""
        entry, event = self._waiting.pop(event_id)
        others = self._of[event.request_id]
        del others[event_id]
        if not others:
            del self._of[event.request_id]
        return entry, event

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._waiting
