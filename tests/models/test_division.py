"""The rows that travel between peers are those that a batch reads. What they learn so: test_peers."""

import torch

from models.gradients import rows_read
from models.types import Batch


def test_what_a_batch_reads_of_each_table(spec, make_request) -> None:
    batch, _ = make_request(9, seed=0)
    read = rows_read(spec, Batch(*map(torch.from_numpy, batch)))
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    tables = {f"embedding.{table.name}": (table, index) for layout, index in sides for table in layout.tables}
    assert read.keys() == tables.keys()
    for name, (table, index) in tables.items():
        slots = [slot for one in table.columns for slot in range(one.start, one.start + one.field.slots)]
        assert read[name].tolist() == sorted(set(index[:, slots].ravel().tolist()))
