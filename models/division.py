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

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.networks.click import Params
from models.networks.embedding import TABLE
from models.peers import Peers
from models.spec import FeatureSpec
from models.touched import Touched
from models.types import Array, Batch

Places = Mapping[str, Tensor]  # table -> (N,) int64, ascending: some of its rows


class _Traffic(NamedTuple):
    """Rows whose values or gradients travel."""

    asked: Sequence[Places]  # by reader: of ours
    wanted: Sequence[Places]  # by owner: what we read of theirs


class Division:
    """A click model's parameters, as one of several peers has them.

    Args:
        spec: of its network.
        params: the same on all peers.
        peers: all of which call `fetch`, `add_up` and `level` at the same time.
        moves_unread: of the optimiser.

    Attributes:
        peers: as given.
        owned: what is ours to move, by name: of each table our rows, and of all else everything. No copies.
        read: in this step, by each peer.
    """

    def __init__(self, spec: FeatureSpec, params: Params, peers: Peers, *, moves_unread: bool) -> None:
        self._spec, self._params, self.peers = spec, params, peers
        self._tables = {name: value.detach() for name, value in params.items() if name.startswith(TABLE)}
        self._others = [name for name in params if name not in self._tables]
        self._shares = {name: peers.shares(len(value)) for name, value in self._tables.items()}
        self.owned: Params = {**params, **{name: value[self.share(name)] for name, value in self._tables.items()}}
        self._place = {name: torch.empty(len(value), dtype=torch.int64) for name, value in self._tables.items()}
        self.read: Sequence[Places] = []
        self._traffic = _Traffic([], [])
        # What others may have as it was. Where rows move that nobody reads, it may be any.
        self._moved = None if moves_unread else Touched(params)

    def share(self, name: str) -> slice:
        """Our rows of a table."""
        return self._shares[name][self.peers.rank]

    def fetch(self, parts: Sequence[Batch[Tensor]]) -> None:
        """Begins a step: brings what we read from those who own it.

        Args:
            parts: what each peer reads.
        """
        self.read = [rows_read(self._spec, part) for part in parts]
        self._traffic = self._between(self.read)
        self._bring(self._traffic)
        if self._moved:
            self._moved.mark(self.read)

    def add_up(self, p: Tensor, shares: Sequence[slice]) -> Tensor:
        """Ends it: brings the gradients to those who own what they are of, as `owned` has them.

        Args:
            p: (N,) float32, for our rows of the batch.
            shares: each peer's rows of it.

        Returns:
            What each has for its own, (B,) float32.
        """
        others = torch.cat([_gradient(self._params[name]).flatten() for name in self._others])
        by_owner = zip(*(self._gradients(name) for name in self._tables), strict=True)
        given = [torch.cat([*(part.flatten() for part in parts), others, p]) for parts in by_owner]
        sizes = [
            [self._numbers(places), len(others), share.stop - share.start]
            for places, share in zip(self._traffic.asked, shares, strict=True)
        ]
        found = self.peers.swap(given, [sum(parts) for parts in sizes])
        rows, totals, all_p = zip(*map(torch.split, found, sizes), strict=True)
        self._take(rows)
        total = reduce(torch.add, totals)  # in one order for all
        parts = torch.split(total, [self._params[name].numel() for name in self._others])
        for name, part in zip(self._others, parts, strict=True):
            self._params[name].grad = part.view_as(self._params[name])
        return torch.cat(all_p)

    def level(self) -> None:
        """Brings every row to all peers that they may have as it was."""
        everywhere = {name: torch.arange(len(value)) for name, value in self._tables.items()}
        if self._moved:
            everywhere = {name: torch.from_numpy(rows).long() for name, rows in self._moved.rows().items()}
            self._moved.clear()
        self._bring(self._between([everywhere] * self.peers.size))

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
        bounds = {name: (shares[owner].start, shares[owner].stop) for name, shares in self._shares.items()}
        return {name: rows[slice(*np.searchsorted(rows.numpy(), bounds[name]))] for name, rows in places.items()}

    def _bring(self, traffic: _Traffic) -> None:
        """Values of rows to those who want them."""
        asked, wanted = ([{} if peer == self.peers.rank else one for peer, one in enumerate(side)] for side in traffic)
        given = [
            torch.cat(
                [torch.empty(0), *(self._tables[name].index_select(0, rows).flatten() for name, rows in places.items())]
            )
            for places in asked
        ]
        found = self.peers.swap(given, [self._numbers(places) for places in wanted])
        for places, values in zip(wanted, found, strict=True):
            for name, part in self._by_table(places, values).items():
                self._tables[name].index_copy_(0, places[name], part)

    def _gradients(self, name: str) -> Sequence[Tensor]:
        """Ours of a table's rows that we read, by their owners: (N, D). Takes them away."""
        gradient, self._params[name].grad = self._params[name].grad, None
        read = self.read[self.peers.rank][name]
        total = torch.zeros(len(read), self._tables[name].shape[1])
        if gradient is not None:
            total.index_add_(0, self._among(name, gradient._indices()[0], read), gradient._values())
        return torch.split(total, [len(places[name]) for places in self._traffic.wanted])

    def _take(self, found: Sequence[Tensor]) -> None:
        """Gradients of our rows, from those who read them."""
        by_reader = [self._by_table(places, values) for places, values in zip(self._traffic.asked, found, strict=True)]
        for name, table in self._tables.items():
            given = torch.cat([places[name] for places in self._traffic.asked])
            rows = torch.from_numpy(_distinct(given.numpy()))
            total = torch.zeros(len(rows), table.shape[1])
            total.index_add_(0, self._among(name, given, rows), torch.cat([one[name] for one in by_reader]))
            self.owned[name].grad = _sparse(rows - self.share(name).start, total, self.owned[name])

    def _among(self, name: str, rows: Tensor, distinct: Tensor) -> Tensor:
        """Where these rows of a table stand, each among distinct ones. A tenth of the time of a search."""
        place = self._place[name]
        place[distinct] = torch.arange(len(distinct))
        return place.index_select(0, rows)

    def _by_table(self, places: Places, values: Tensor) -> dict[str, Tensor]:
        """The values of each table's rows, (N, D)."""
        widths = {name: self._tables[name].shape[1] for name in places}
        parts = torch.split(values, [len(rows) * widths[name] for name, rows in places.items()])
        return {name: part.view(-1, widths[name]) for name, part in zip(places, parts, strict=True)}

    def _numbers(self, places: Places) -> int:
        return sum(len(rows) * self._tables[name].shape[1] for name, rows in places.items())


def rows_read(spec: FeatureSpec, batch: Batch[Tensor]) -> Places:
    """What a batch reads of each table."""
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    return {
        f"{TABLE}{table.name}": torch.from_numpy(_distinct(index[:, table.slots].numpy())).long()
        for layout, index in sides
        for table in layout.tables
    }


def _distinct(index: Array) -> Array:
    """Ascending. A tenth of the time of torch.unique and np.unique."""
    ordered = np.sort(index, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _gradient(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def _sparse(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, table.shape, is_coalesced=True, check_invariants=False)
