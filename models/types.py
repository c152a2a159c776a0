"""The vocabulary of `models`: the words in which encoder, network, exploration, learner and engines speak.

Shape legend, one meaning in the whole package:

    B   candidates of one request, or rows of one training batch
    C   rows of context: 1 (one request, broadcast over its candidates) or B
    K   feature slots of one side (a categorical field has one, a multi-hot field several)
    D   width of the embedding h = [context | item]
    H   hidden units of one layer;  U  units that a dropout mask covers
    S   draws of noise;  R  rows of noise: 1 (shared by all candidates) or B
    L   items shown

numpy only: the scorer imports this module, and the scorer never imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple

from numpy.typing import NDArray
from typing_extensions import TypeVar

#: Prefix of the ranking graphs' inputs that are parameters.
PARAM = "param."

Array = NDArray[Any]
#: Batch and Scores hold numpy arrays; in the torch half they are Batch[Tensor] and Scores[Tensor].
A = TypeVar("A", default=Array)
Scope = Literal["request", "candidate", "version"]
ItemAge = Literal["new", "mature"]


class Batch(NamedTuple, Generic[A]):
    """Encoded rows: a bag of weighted table rows for each side. Made only by `models.features`."""

    context_index: A  # (C, Kc) int32, rows of the context tables
    context_weight: A  # (C, Kc) float32, 0 where a slot is empty; the 1 of a categorical slot is never read
    item_index: A  # (B, Ki) int32
    item_weight: A  # (B, Ki) float32


class Inputs(NamedTuple, Generic[A]):
    """What a ranking depends on besides the parameters."""

    batch: Batch[A]  # one request (C = 1) or rows of several (C = B)
    noise: Mapping[str, A]  # NoiseInput.name -> (S, R, U) float32
    lambda_: A  # () float32, exploration strength; (B, 1) where rows of several versions or strategies meet
    impressions: A  # (B,) int64, how often each candidate was shown
    #: Work on every candidate, also behind a closed gate: no shape then depends on a value, as captured graphs want it.
    static: bool = False


class Scores(NamedTuple, Generic[A]):
    """What an exploration method says about every candidate. All (B,) float32.

    Behind a closed gate nothing is explored and nothing computed: uncertainty and gradient_norm are 0 there.
    """

    p_click: A  # y' = f(h), in (0, 1)
    score: A  # y_final, orders the slate
    uncertainty: A  # dy; signed for Thompson, >= 0 for UCB, 0 where the method has none
    gate_open: A  # 1 where the candidate may be explored, else 0
    gate_threshold: A  # y_s; 0 where there is no gate
    gradient_norm: A  # |grad_h f|; 0 where the method takes no gradient


@dataclass(frozen=True, kw_only=True)
class NoiseInput:
    """One random input of a ranking graph: the method declares it, the caller draws it (`models.noise`).

    Args:
        name: the graph's input.
        distribution: "dropout" (0 with probability `rate`, else 1 / (1 - rate)) or "uniform" (in [0, 1)).
        scope: what shares one draw: every candidate of a request, one candidate, or every request of a model version.
        draws: S.
        width: U.
        rate: dropout rate; unused by "uniform".
    """

    name: str
    distribution: Literal["dropout", "uniform"]
    scope: Scope
    draws: int
    width: int
    rate: float = 0.0


class Slate(NamedTuple):
    """The L items shown, best first, and what exploration did to them."""

    order: Array  # (L,) int64, candidates by descending score
    greedy: Array  # (B,) int64, each candidate's 0-based rank by p_click (times bid)
    explored: Array  # (L,) bool: the slot holds another candidate than greedy would have put there
    propensity: Array | None  # (L,) float64 in (0, 1], or None where it has no closed form


Noise = Mapping[str, Array]  # NoiseInput.name -> (S, R, U) float32
