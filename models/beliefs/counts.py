"""Counts: how often each item was learned from and clicked, by its row in the table of its ids."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, ByRow, Lesson, State
from models.beliefs.rows import rows_of
from models.networks.click import ClickNetwork, Params
from models.spec import Column, FeatureSpec
from models.types import Batch


def id_column(spec: FeatureSpec) -> Column:
    """The item field that holds the id. Raises ValueError: there is none."""
    for column in spec.item.columns:
        if column.field.source == "id":
            return column
    raise ValueError('items are told apart by an item field with source = "id", and the feature spec has none')


def id_rows(spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
    """Each candidate's row among those of the id field, (B,) int64. Ids of one hash bucket count as one item."""
    return rows_of(id_column(spec), batch)


@dataclass(frozen=True, kw_only=True)
class Counts(ByRow):
    """Exact, and of this lane alone: what other lanes or models showed is not in them."""

    name: str = "counts"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        rows = id_column(network.spec).field.rows
        names = ("shown", "clicked")
        return State(kept={name: torch.zeros(rows, dtype=torch.int64) for name in names})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        rows = self.rows(network.spec, lesson.batch)
        state["shown"].index_add_(0, rows, torch.ones_like(rows))
        state["clicked"].index_add_(0, rows, lesson.label.long())

    def rows(self, spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
        return id_rows(spec, batch)


@dataclass(frozen=True, kw_only=True)
class Total(Belief):
    """How many examples were learned, the t of schedules and bounds."""

    name: str = "total"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        return State(kept={"examples": torch.zeros((), dtype=torch.int64)})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        state["examples"] += len(lesson.label)
