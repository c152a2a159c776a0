"""What a service would have known when it was asked for an impression of KuaiRand: its context features."""

from collections import deque
from typing import Any

Row = dict[str, Any]

#: Fields of side context. The first is a column; all other columns of an impression are its outcome.
CONTEXT = ("tab", "user_tab", "user_history")

DELAY_MS = 600_000  # until an outcome counts: no service knows it at once
MOST_CLICKS, MOST_SHOWN = 15, 30  # that are told apart


class Context:
    """Context features, impression after impression, in the order of time."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int, int]] = deque()  # (time, user, click), not counted yet
        self._counts: dict[int, tuple[int, int]] = {}  # user -> (clicks, impressions)

    def of(self, row: Row) -> Row:
        """The features of a row, by name, from rows before it alone."""
        time_ms, user, tab = row["time_ms"], row["user_id"], row["tab"]
        while self._recent and self._recent[0][0] < time_ms - DELAY_MS:
            _, other, click = self._recent.popleft()
            clicks, shown = self._counts.get(other, (0, 0))
            self._counts[other] = clicks + click, shown + 1
        clicks, shown = self._counts.get(user, (0, 0))
        self._recent.append((time_ms, user, row["is_click"]))
        return {
            "tab": tab,
            "user_tab": f"{user}-{tab}",
            "user_history": f"{min(clicks, MOST_CLICKS)}-{min(shown, MOST_SHOWN)}",
        }
