"""Rounds: how ranks that read different partitions come to one order of the log.

In a round every rank reads on, says up to where it knows its partitions, and feeds its trainer what lies before the
least of these places. So the entries of a round come before those of the next, whichever rank has read them, and how
the rounds are cut decides nothing: see `service.training.joins`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from service.streams import Entry, LogReader, order
from service.training.ranks import Ranks

AHEAD = 1_000  # entries read and not yet fed, with which a rank reads no further
BLOCK_MS = 20  # of a read for which others wait


class Word(NamedTuple):
    """What a rank says, or what they all come to."""

    stop: bool = False  # told to; one is enough
    drained: bool = False  # nothing is left to read; on all
    due: bool = False  # a version is to be published; as rank 0 says
    full: bool = False  # which is a full one, with the state of all ranks; as rank 0 says


class _Said(NamedTuple):
    end: tuple[int, int]  # (ms, seq): every entry before it is known
    word: Word


class Rounds:
    """The part of the log that is this rank's.

    Args:
        reader: of its streams.
        ranks: all of them.

    Attributes:
        positions: our stream -> last entry read; further than what was fed, where other ranks are behind.
    """

    def __init__(self, reader: LogReader, ranks: Ranks) -> None:
        self._reader, self._ranks = reader, ranks
        self.positions: dict[str, str] = {}
        self._ahead: list[Entry] = []  # read and not fed
        self._end = (0, 0)

    @property
    def level(self) -> bool:
        """Whether everything that was read was fed, too."""
        return not self._ahead

    def read(self, *, block_ms: int) -> list[Entry]:
        """Reads on, unless we are far ahead of the others. Returns what was found. Raises RedisError.

        Args:
            block_ms: how long to wait where nothing is new. With several ranks it is never long.
        """
        if len(self._ahead) >= AHEAD:
            return []
        if self._ranks.size > 1:
            block_ms = min(block_ms, BLOCK_MS) if self.level else 0
        found, self._end = self._reader.read_on(self.positions, block_ms=block_ms)
        self._ahead += found
        self.positions |= {entry.stream: entry.position for entry in found}
        return found

    def go_on(self, positions: Mapping[str, str]) -> None:
        """The next read goes on from these positions, as far as they are of our streams."""
        self.positions |= {stream: positions[stream] for stream in self._reader.streams if stream in positions}

    def agree(self, word: Word) -> tuple[list[Entry], Word]:
        """Waits for all ranks. Returns what is to be fed now, and what the ranks come to."""
        said = self._ranks.gather(msgspec.msgpack.encode(_Said(self._end, word)), resting=True)
        ends, words = zip(*(msgspec.msgpack.decode(one, type=_Said) for one in said), strict=True)
        end = min(ends)
        now = [entry for entry in self._ahead if order(entry.position) < end]
        self._ahead = [entry for entry in self._ahead if order(entry.position) >= end]
        stop, drained = any(word.stop for word in words), all(word.drained for word in words)
        return now, words[0]._replace(stop=stop, drained=drained)
