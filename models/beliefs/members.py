"""Members: K click models beside the click model, as one network with K copies of every parameter.

Each has the architecture of the click model, without dropout and without a gate. All are computed at once: the tables
of the members stand side by side in one, as wide as K of them, and the layers are products of stacks of matrices.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models import bonus
from models.networks.click import ClickNetwork, Params
from models.networks.embedding import is_table, pool
from models.spec import Layout
from models.types import Batch, Inputs, NoiseInput, Scope, Scores

#: Whether members have embedding tables of their own, or look at the click model's, which they do not move.
Tables = Literal["own", "shared"]


@dataclass(frozen=True, kw_only=True)
class Members:
    """Shapes of K members.

    Args:
        count: K.
        tables: see `Tables`. "own" is the papers' complete models, and K times the memory.
    """

    count: int
    tables: Tables

    def init(self, network: ClickNetwork, generator: torch.Generator) -> Params:
        """K times what the click model begins with, each time drawn anew."""
        drawn = [network.init(generator) for _ in range(self.count)]
        params = {}
        for name in drawn[0]:
            if is_table(name):
                if self.tables == "own":
                    params[name] = torch.cat([one[name] for one in drawn], dim=1)  # (rows, K * width)
            elif name.startswith("mlp."):
                params[name] = torch.stack([one[name] for one in drawn])  # (K, ...)
        return params

    def logits(
        self,
        network: ClickNetwork,
        click: Params,
        state: Params,
        batch: Batch[Tensor],
        context_row: Tensor | None = None,
    ) -> Tensor:
        """What each member says, (K, B).

        Args:
            click: parameters of the click model; "shared" reads its tables.
            state: parameters of the members.
            batch: with C rows of context.
            context_row: (B,) int64, each candidate's row of context; None where C is 1 or B.
        """
        context, item = self._embed(network, click, state, batch)
        shared = _linear(context, state["mlp.0.context"]) + state["mlp.0.bias"][:, None]
        if context_row is not None:
            shared = shared.index_select(1, context_row)
        z = torch.relu(shared + _linear(item, state["mlp.0.item"]))  # (K, B, H)
        for layer in range(1, len(network.config.hidden)):
            z = torch.relu(_linear(z, state[f"mlp.{layer}.weight"]) + state[f"mlp.{layer}.bias"][:, None])
        return _linear(z, state["mlp.out.weight"][:, None]).squeeze(2) + state["mlp.out.bias"][:, None]

    def _embed(
        self, network: ClickNetwork, click: Params, state: Params, batch: Batch[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(K, C, Dc) and (K, B, Di)."""
        if self.tables == "shared":
            context, item = (side.detach()[None] for side in network.embed(click, batch))
            return context.expand(self.count, -1, -1), item.expand(self.count, -1, -1)
        sides = (
            (network.spec.context, batch.context_index, batch.context_weight),
            (network.spec.item, batch.item_index, batch.item_weight),
        )
        context, item = (self._apart(layout, pool(state, layout, *side)) for layout, *side in sides)
        return context, item

    def _apart(self, layout: Layout, wide: Tensor) -> Tensor:
        """The members' embeddings (K, R, width) from rows that hold them side by side, field by field."""
        parts, start = [], 0
        for table in layout.tables:
            fields = len(table.columns)
            part = wide[:, start : start + fields * self.count * table.width]
            start += part.shape[1]
            part = part.reshape(-1, fields, self.count, table.width).permute(2, 0, 1, 3)
            parts.append(part.reshape(self.count, -1, fields * table.width))
        return torch.cat(parts, dim=2) if parts else wide.expand(self.count, -1, -1)


def member_input(scope: Scope) -> NoiseInput:
    """The random input that says which member speaks."""
    return NoiseInput(name="member", distribution="uniform", scope=scope, draws=1, width=1)


def speak(
    members: Members, network: ClickNetwork, params: Params, state: Params, inputs: Inputs[Tensor]
) -> Scores[Tensor]:
    """Scores of a method that lets one of K members speak: at lambda 1 its prediction is the score."""
    p = torch.sigmoid(network.logit(params, inputs.batch))
    each = torch.sigmoid(members.logits(network, params, state, inputs.batch))
    return bonus.add(p, picked(each, inputs.noise["member"]) - p, inputs)


def weighted_loss(logits: Tensor, clicked: Tensor, unclicked: Tensor) -> Tensor:
    """Cross entropy of K members, summed over them, a mean over B examples.

    Args:
        logits, clicked, unclicked: (K, B): how often each example counts as clicked, and how often as not.
    """
    loss = clicked * functional.softplus(-logits) + unclicked * functional.softplus(logits)
    return loss.sum() / logits.shape[1]


def picked(each: Tensor, uniform: Tensor) -> Tensor:
    """Of K values a candidate (K, B) one each (B,), all equally likely, as (1, R, 1) numbers in [0, 1) have it."""
    count = each.shape[0]
    place = torch.floor(uniform[0, :, 0] * count)  # (R,)
    chosen = place[None] == torch.arange(count, dtype=place.dtype, device=place.device)[:, None]  # (K, R)
    return torch.where(chosen, each, 0.0).sum(0)


def _linear(z: Tensor, weight: Tensor) -> Tensor:
    """(K, B, I), (K, O, I) -> (K, B, O)."""
    return torch.matmul(z, weight.transpose(1, 2))
