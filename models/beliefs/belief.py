"""The protocol of beliefs: state that a method learns, and how it is learned.

A belief's state lives in the parameters of the click model, under names that begin with the belief's own: it is trained
by `models.memory.Memory`, travels in weights.safetensors, and is an input of the exported ranking graph. Neither scorer
nor checkpoints know that it exists. Three promises hold for every belief:

- It changes no bit of the click model: it looks at it, and no gradient of its loss gets there. So a strategy may join
  a lane without moving anybody's predictions.
- All randomness of a step comes from (seed, step, name of the belief), so a restored one goes on with the same bits.
- Strategies whose beliefs are equal share one; equal names with other options are refused (`models.registry.beliefs`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Forward, Params
from models.noise import seed_of
from models.spec import FeatureSpec
from models.types import Batch


@dataclass(frozen=True, kw_only=True)
class State:
    """What a belief starts from, each by its name below the belief's."""

    trained: Params = field(default_factory=dict)  # float32, moved by the optimiser along the gradient of `loss`
    kept: Params = field(default_factory=dict)  # changed by `note`; a ranking graph may read it
    private: Params = field(default_factory=dict)  # changed by `note`; stays with the trainer


class Lesson(NamedTuple):
    """What one step learns from: B examples, and what the click model said of them before the step."""

    batch: Batch[Tensor]  # with C rows of context
    label: Tensor  # (B,) float32, 1 clicked
    context_row: Tensor | None  # (B,) int64, each example's row of context; None where C = B
    at: Forward  # without dropout, no gradient
    weight: Tensor | None = None  # (B,) float32, examples that each stands for, of which others were left out; None: 1


class Belief(ABC):
    """What every belief is: a frozen dataclass whose options shape the state. All methods but `init` may be left out.

    Names in `state` are those below the belief's. `click` are the parameters of the click model, without gradients, and
    must not be changed. `generator` is that of the step, first used by `note`.
    """

    name: str  #: The first part of its parameters' names.

    #: Whether it minds the weights of a lesson. Others want every example.
    weighs: ClassVar[bool] = False

    @property
    def recalls(self) -> bool:
        """Whether `loss` reads rows of the click model's tables that the lesson does not."""
        return False

    @abstractmethod
    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        """Fresh state. Raises ValueError: not to be had with this network or its features."""

    def note(  # noqa: B027
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        """Changes what is kept and private, in place: an update rule. Called before `loss`, without gradients."""

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor | None:
        """What the optimiser lowers, a mean over examples (). None where nothing is trained."""
        return None

    def prepare(self, network: ClickNetwork, state: Params) -> Params:
        """What ranking derives from the state alone, once a version."""
        return {}


class ByRow(Belief):
    """A belief all of whose parameters are arrays of as many rows, few of which a step changes: a delta has these."""

    @abstractmethod
    def rows(self, spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
        """Those that `note` changes, (B,) int64."""


def begin(belief: Belief, network: ClickNetwork, seed: int) -> State:
    """Fresh state that depends on (seed, name) alone: a belief more or less changes nobody else's."""
    return belief.init(network, torch.Generator().manual_seed(seed_of(f"{seed}.{belief.name}")))


def below(belief: Belief, params: Params) -> Params:
    """Of all parameters the belief's, by their names below its own."""
    prefix = f"{belief.name}."
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def named(belief: Belief, state: Params) -> Params:
    """The other way round."""
    return {f"{belief.name}.{name}": value for name, value in state.items()}


def fresh(network: ClickNetwork, beliefs: Iterable[Belief], *, seed: int) -> Params:
    """All parameters that a ranking may read, of a click model and beliefs that have learned nothing."""
    params = network.init(torch.Generator().manual_seed(seed))
    for belief in beliefs:
        state = begin(belief, network, seed)
        params |= named(belief, state.trained | state.kept)
    return params


def prepare(network: ClickNetwork, beliefs: Iterable[Belief], params: Params) -> Params:
    """The parameters, and what rankings derive from them: `ClickNetwork.prepare` and that of each belief."""
    prepared = network.prepare(params)
    for belief in beliefs:
        prepared = prepared | named(belief, belief.prepare(network, below(belief, params)))
    return prepared
