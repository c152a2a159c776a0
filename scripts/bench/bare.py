"""The trainer's rival: the same network as modules, and the loop that everybody writes. They share no code."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN, GATE_HIDDEN, WIDTH = (256, 128, 64), 32, 8


class Ready(NamedTuple):
    """A batch as the loop is handed it."""

    context_index: Tensor  # (B, Kc) int32
    item_index: Tensor  # (B, Ki) int32
    label: Tensor  # (B,) float32


class BareNetwork(nn.Module):
    """The benchmark's click network and its gate.

    Args:
        context: (fields, rows of all their tables).
        item: the same.
        dropout: rate.
    """

    def __init__(self, *, context: tuple[int, int], item: tuple[int, int], dropout: float) -> None:
        super().__init__()
        (context_fields, context_rows), (item_fields, item_rows) = context, item
        self.context = nn.Embedding(context_rows, WIDTH)
        self.item = nn.Embedding(item_rows, WIDTH)
        layers: list[nn.Module] = []
        for inputs, units in zip(((context_fields + item_fields) * WIDTH, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
        self.gate = nn.Sequential(nn.Linear(item_fields * WIDTH, GATE_HIDDEN), nn.ReLU(), nn.Linear(GATE_HIDDEN, 1))

    def forward(self, context_index: Tensor, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of f and of the gate, (B,) each. No gradient of the gate reaches the embeddings."""
        item = self.item(item_index).flatten(1)
        h = torch.cat([self.context(context_index).flatten(1), item], dim=1)
        return self.mlp(h).squeeze(1), self.gate(item.detach()).squeeze(1)


class BareLoop:
    """Forward, backward, step: no log, no join, no validation, no checkpoint."""

    def __init__(self, network: BareNetwork, learning_rate: float) -> None:
        self._network = network.train()
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    def __call__(self, batches: Sequence[Ready]) -> None:
        for batch in batches:
            self._optimizer.zero_grad(set_to_none=True)
            click, gate = self._network(batch.context_index, batch.item_index)
            loss = functional.binary_cross_entropy_with_logits(click, batch.label)
            loss = loss + functional.binary_cross_entropy_with_logits(gate, batch.label)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
