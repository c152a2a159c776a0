"""A gradient in parts: which rows of tables each has, and in which order they add up. What comes of it: test_peers."""

import torch

from models.gradients import Gradient, give, rows_read, taken
from models.types import Batch

TABLE, OTHER = "embedding.item_3", "mlp.0.bias"


def test_what_a_batch_reads_of_each_table(spec, make_request) -> None:
    batch, _ = make_request(9, seed=0)
    read = rows_read(spec, Batch(*map(torch.from_numpy, batch)))
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    tables = {f"embedding.{table.name}": (table, index) for layout, index in sides for table in layout.tables}
    assert read.keys() == tables.keys()
    for name, (table, index) in tables.items():
        slots = [slot for one in table.columns for slot in range(one.start, one.start + one.field.slots)]
        assert read[name].tolist() == sorted(set(index[:, slots].ravel().tolist()))


def test_the_first_parts_are_added_first() -> None:
    params = {TABLE: torch.zeros(4, 1), OTHER: torch.zeros(2)}
    rows = [torch.tensor([1, 3]), torch.tensor([], dtype=torch.int64), torch.tensor([1]), torch.tensor([1, 2])]
    values = [torch.tensor([[1e8], [5.0]]), torch.zeros(0, 1), torch.tensor([[-1e8]]), torch.tensor([[1.0], [7.0]])]
    others = [torch.tensor(one) for one in ([1e8, 1.0], [0.0, 0.0], [-1e8, 1.0], [1.0, 1.0])]
    parts = [
        Gradient({TABLE: row}, {TABLE: value}, other) for row, value, other in zip(rows, values, others, strict=True)
    ]
    give(params, parts)
    assert params[OTHER].grad.tolist() == [1.0, 3.0]  # from behind, the first would be 0
    whole = taken(params, {TABLE: torch.tensor([0, 1, 2, 3])})
    assert whole.values[TABLE].flatten().tolist() == [0.0, 1.0, 7.0, 5.0]
    assert whole.others.tolist() == [1.0, 3.0]
    assert all(value.grad is None for value in params.values())


def test_no_gradient_is_zeros() -> None:
    params = {TABLE: torch.ones(4, 2), OTHER: torch.ones(3)}
    nothing = taken(params, {TABLE: torch.tensor([0, 2])})
    assert torch.equal(nothing.values[TABLE], torch.zeros(2, 2))
    assert torch.equal(nothing.others, torch.zeros(3))
