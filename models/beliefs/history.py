"""History: the newest examples, kept by the trainer to be learned from again."""

import torch
from torch import Tensor

from models.beliefs.belief import Lesson
from models.networks.click import ClickNetwork, Params
from models.types import Batch

_PREFIX = "history."


def begin(network: ClickNetwork, capacity: int, columns: int) -> Params:
    """Room for so many examples, each with `columns` numbers of its owner's."""
    spec = network.spec
    return {
        f"{_PREFIX}context_index": torch.zeros(capacity, spec.context.slots, dtype=torch.int32),
        f"{_PREFIX}context_weight": torch.zeros(capacity, spec.context.slots),
        f"{_PREFIX}item_index": torch.zeros(capacity, spec.item.slots, dtype=torch.int32),
        f"{_PREFIX}item_weight": torch.zeros(capacity, spec.item.slots),
        f"{_PREFIX}own": torch.zeros(capacity, columns),
        f"{_PREFIX}seen": torch.zeros((), dtype=torch.int64),
    }


def size(state: Params) -> int:
    """How many examples there are."""
    return min(int(state[f"{_PREFIX}seen"]), len(state[f"{_PREFIX}own"]))


def append(state: Params, lesson: Lesson, own: Tensor) -> None:
    """Adds the examples in their order, each in the place of the oldest where there is no room.

    Args:
        own: (B, columns).
    """
    batch = lesson.batch
    context_index, context_weight = batch.context_index, batch.context_weight
    if lesson.context_row is not None:
        context_index, context_weight = context_index[lesson.context_row], context_weight[lesson.context_row]
    columns = (*Batch(context_index, context_weight, batch.item_index, batch.item_weight), own)
    capacity, seen = len(state[f"{_PREFIX}own"]), state[f"{_PREFIX}seen"]
    newest = slice(max(len(own) - capacity, 0), None)  # of a batch larger than the room
    place = (int(seen) + torch.arange(len(own))[newest]) % capacity
    for name, column in zip((*Batch._fields, "own"), columns, strict=True):
        kept = state[f"{_PREFIX}{name}"]
        kept[place] = 0  # whose slots at the end are empty may come with fewer of them
        kept[place, : column.shape[1]] = column[newest]
    seen += len(own)


def take(state: Params, place: Tensor) -> tuple[Batch[Tensor], Tensor]:
    """Examples by their places (M,), and their owner's numbers (M, columns)."""
    batch = Batch(*(state[f"{_PREFIX}{name}"][place] for name in Batch._fields))
    return batch, state[f"{_PREFIX}own"][place]
