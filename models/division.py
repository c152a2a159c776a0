"""Division: learners that take every step together, peers, each move a part of the embedding tables.

A peer owns some rows of every table: it alone has their moments and moves them, and others have them as they last read
them. What is not a table is small: all own it, add up the same gradients, and move it to the same bits. In a step rows
travel twice: their values to those who read them, and their gradients back; see [1], [2].

References:
    [1] Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC,
        arXiv:1910.02054
    [2] Mudigere et al. 2022, "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning
        Recommendation Models", ISCA, arXiv:2104.05158: row-wise sharding of tables
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.gradients import Gradient, Places, give, rows_read, taken
from models.networks.click import Params
from models.networks.embedding import TABLE
from models.peers import Peers, shares
from models.spec import FeatureSpec
from models.touched import Touched
from models.types import Array, Batch

# Numbers that an optimiser's kernel takes at a time. What is left at the end goes through other instructions and may
# differ in the last bit, so that must be the same numbers whoever owns them.
_AT_ONCE = 16


class _Traffic(NamedTuple):
    """Rows whose values or gradients travel."""

    asked: Sequence[Places]  # by reader: of ours
    wanted: Sequence[Places]  # by owner: what we read of theirs


class Division:
    """A click model's parameters, as one of several peers has them.

    Args:
        spec: of its network.
        params: the same on all peers.
        peers: all of which call `fetch`, what it returns, `add_up` and `level` at the same time.
        moves_unread: of the optimiser.

    Attributes:
        peers: as given.
        owned: what is ours to move, by name: of each table our rows, and of all else everything. No copies.
    """

    def __init__(self, spec: FeatureSpec, params: Params, peers: Peers, *, moves_unread: bool) -> None:
        self._spec, self._params, self.peers = spec, params, peers
        self._tables = {name: value.detach() for name, value in params.items() if name.startswith(TABLE)}
        self._shares = {name: _divided(len(value), peers.size) for name, value in self._tables.items()}
        self.owned: Params = {**params, **{name: value[self.share(name)] for name, value in self._tables.items()}}
        self._read: Places = {}  # by us, in this step
        self._traffic = _Traffic([], [])
        # What others may have as it was. Where rows move that nobody reads, it may be any.
        self._moved = None if moves_unread else Touched(self._tables)

    def share(self, name: str) -> slice:
        """Our rows of a table."""
        return self._shares[name][self.peers.rank]

    def fetch(self, parts: Sequence[Batch[Tensor]]) -> Callable[[], None]:
        """Begins a step: asks for what we read from those who own it.

        Args:
            parts: what each peer reads.

        Returns:
            What waits until it is there.
        """
        read = [rows_read(self._spec, part) for part in parts]
        self._read, self._traffic = read[self.peers.rank], self._between(read)
        arrived = self._bring(self._traffic)
        if self._moved:
            self._moved.mark(read)
        return arrived

    def add_up(self, p: Tensor, cuts: Sequence[slice]) -> Tensor:
        """Ends it: brings the gradients to those who own what they are of, as `owned` has them.

        Args:
            p: (N,) float32, for our rows of the batch.
            cuts: each peer's rows of it.

        Returns:
            What each has for its own, (B,) float32.
        """
        ours = taken(self._params, self._read)
        given = [torch.cat([*values, ours.others, p]) for values in self._by_owner(ours.values)]
        sizes = [
            [self._numbers(places), len(ours.others), cut.stop - cut.start]
            for places, cut in zip(self._traffic.asked, cuts, strict=True)
        ]
        found = self.peers.swap(given, [sum(parts) for parts in sizes])()
        values, others, all_p = zip(*map(torch.split, found, sizes), strict=True)
        give(self.owned, [self._owned(*one) for one in zip(self._traffic.asked, values, others, strict=True)])
        return torch.cat(all_p)

    def level(self) -> Places:
        """Brings every row to all peers that they may have as it was. Returns these rows."""
        everywhere = {name: torch.arange(len(value)) for name, value in self._tables.items()}
        if self._moved:
            everywhere = {name: torch.from_numpy(rows).long() for name, rows in self._moved.rows().items()}
            self._moved.clear()
        self._bring(self._between([everywhere] * self.peers.size))()
        return everywhere

    def cut(self, state: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """The state of an optimiser of all rows: of one of `owned`, and of the rows of the peers after us."""
        ours, theirs = dict(state), {}
        for name in self._tables:
            for key, value in state.items():
                if key.endswith(f".{name}") and value.ndim:
                    ours[key], theirs[key] = value[self.share(name)], value[self.share(name).stop :]
        return ours, theirs

    def _between(self, read: Sequence[Places]) -> _Traffic:
        """What travels, by what each peer reads."""
        ours, peers = self.peers.rank, range(len(read))
        asked = [self._within(places, ours) for places in read]
        return _Traffic(asked, [self._within(read[ours], owner) for owner in peers])

    def _within(self, places: Places, owner: int) -> Places:
        """Those that are this peer's."""
        bounds = {name: (one[owner].start, one[owner].stop) for name, one in self._shares.items()}
        return {name: rows[slice(*np.searchsorted(rows.numpy(), bounds[name]))] for name, rows in places.items()}

    def _bring(self, traffic: _Traffic) -> Callable[[], None]:
        """Sends values of rows to those who want them. Returns what waits for those that we want."""
        asked, wanted = ([{} if peer == self.peers.rank else one for peer, one in enumerate(side)] for side in traffic)
        given = [
            torch.cat(
                [torch.empty(0), *(self._tables[name].index_select(0, rows).flatten() for name, rows in places.items())]
            )
            for places in asked
        ]
        arriving = self.peers.swap(given, [self._numbers(places) for places in wanted])

        def arrived() -> None:
            for places, values in zip(wanted, arriving(), strict=True):
                for name, part in self._by_table(places, values).items():
                    self._tables[name].index_copy_(0, places[name], part)

        return arrived

    def _by_owner(self, values: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """Ours of each table, of the rows that we read: for each peer, all of its rows."""
        parts = [
            torch.split(one, [len(places[name]) for places in self._traffic.wanted]) for name, one in values.items()
        ]
        return [[part.flatten() for part in each] for each in zip(*parts, strict=True)]

    def _owned(self, places: Places, values: Tensor, others: Tensor) -> Gradient:
        """Of our rows, and of all that is no table, from a peer that read these."""
        rows = {name: one - self.share(name).start for name, one in places.items()}
        return Gradient(rows, self._by_table(places, values), others)

    def _by_table(self, places: Places, values: Tensor) -> dict[str, Tensor]:
        """The values of each table's rows, (N, D)."""
        widths = {name: self._tables[name].shape[1] for name in places}
        parts = torch.split(values, [len(rows) * widths[name] for name, rows in places.items()])
        return {name: part.view(-1, widths[name]) for name, part in zip(places, parts, strict=True)}

    def _numbers(self, places: Places) -> int:
        return sum(len(rows) * self._tables[name].shape[1] for name, rows in places.items())


def _divided(rows: int, peers: int) -> list[slice]:
    """Each peer's rows of a table, from a multiple of `_AT_ONCE` on."""
    blocks = shares(-(-rows // _AT_ONCE), peers)
    return [slice(min(_AT_ONCE * one.start, rows), min(_AT_ONCE * one.stop, rows)) for one in blocks]
