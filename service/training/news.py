"""News: what one feed adds to what every rank knows. Small beside the gradients: encoded rows, not what they were."""

from functools import reduce
from itertools import chain
from typing import NamedTuple

import msgspec
import numpy as np
from safetensors import numpy as safetensors

from models.types import Array
from service.training.examples import Examples, concatenate, rearranged
from service.training.memory import Order
from service.training.ranks import Ranks


class Explored(NamedTuple):
    """A slate that was served, for the budget of its strategy."""

    place: tuple[int, int, str]  # of its entry: (ms, seq, stream)
    strategy: str
    changed: int  # slots, by exploration
    slots: int
    lambda_: float


class News(NamedTuple):
    """All in the order of the log."""

    order: list[Order]  # (W,) of what closed
    examples: Examples  # of it
    item_hash: Array  # (N,) uint64, of its rows in any order
    explored: list[Explored]
    positions: dict[str, str]  # stream -> last entry fed


class _Rest(NamedTuple):
    """What is not arrays."""

    order: list[Order]
    explored: list[Explored]
    positions: dict[str, str]


def exchange(ours: News, ranks: Ranks) -> News:
    """The news of all ranks: what one that had read everything would have."""
    if ranks.size == 1:
        return ours
    given = ranks.gather(_encode(ours), resting=not ours.positions)
    parts = [ours if rank == ranks.rank else _decode(content) for rank, content in enumerate(given)]
    order = [place for part in parts for place in part.order]
    ranked = sorted(range(len(order)), key=order.__getitem__)
    together = reduce(concatenate, [part.examples for part in parts])
    return News(
        [order[number] for number in ranked],
        rearranged(together, np.array(ranked, dtype=np.int64)),
        np.concatenate([part.item_hash for part in parts]),
        sorted(chain.from_iterable(part.explored for part in parts)),
        {stream: position for part in parts for stream, position in part.positions.items()},
    )


def _encode(news: News) -> bytes:
    rest = msgspec.msgpack.encode(_Rest(news.order, news.explored, news.positions))
    arrays = {**news.examples._asdict(), "item_hash": news.item_hash, "rest": np.frombuffer(rest, dtype=np.uint8)}
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _decode(content: bytes) -> News:
    arrays = safetensors.load(content)
    rest = msgspec.msgpack.decode(arrays.pop("rest").tobytes(), type=_Rest)
    item_hash = arrays.pop("item_hash")
    return News(rest.order, Examples(**arrays), item_hash, rest.explored, rest.positions)
