"""Methods by name, and a strategy: a method with its options, its lambda and how its choices are logged."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, cast

import msgspec
from torch import Tensor

from models.beliefs.belief import Belief
from models.exploration.age import Age
from models.exploration.bootstrap import VanillaBootstrap
from models.exploration.count_ucb import CountUcb
from models.exploration.deep_ts_beta import DeepTsBeta
from models.exploration.deep_ucb1 import DeepUcb1
from models.exploration.density import Density
from models.exploration.ensemble import Ensemble
from models.exploration.epsilon_greedy import EpsilonGreedy
from models.exploration.gaussian_process import GaussianProcess
from models.exploration.giro import Giro
from models.exploration.glm_ucb import GlmUcb
from models.exploration.gradient import Gradient
from models.exploration.greedy import Greedy
from models.exploration.guideboot import GuideBoot
from models.exploration.item_laplace import ItemLaplace
from models.exploration.item_posterior import ItemPosterior
from models.exploration.mc_dropout import McDropout
from models.exploration.multi_head import MultiHead
from models.exploration.online_bootstrap import OnlineBootstrap
from models.exploration.online_guideboot import OnlineGuideBoot
from models.exploration.plug_ts import PlugTS
from models.exploration.random import Random
from models.exploration.ts_blr import TsBlr
from models.exploration.underestimation import Underestimation
from models.networks.click import ClickNetwork, Params
from models.types import Inputs, NoiseInput, Scores

#: Where a budget starts looking for its lambda. Ours: the published 0.001 moves a score by 1e-5 of itself.
INITIAL_LAMBDA = 10.0


class Exploration(Protocol):
    """What every method is: the noise it wants, and scores from belief and noise.

    Where a method takes a lambda, 0 gives the greedy order. Some methods also have

    - `uniform_share`: the probability with which they order uniformly at random, and else greedily; it gives their
      propensities a closed form;
    - `beliefs`: a tuple of what they learn beside the click model (`models.beliefs`), to be found in `params`;
    - `initial_lambda`: where lambda starts that is not given.
    """

    def noise(self, network: ClickNetwork) -> tuple[NoiseInput, ...]:
        """The random inputs, in a fixed order."""
        ...

    def scores(self, network: ClickNetwork, params: Params, inputs: Inputs[Tensor]) -> Scores[Tensor]:
        """Scores of B candidates from prepared parameters (`ClickNetwork.prepare`)."""
        ...


METHODS: dict[str, type[Exploration]] = {
    "greedy": Greedy,
    "random": Random,
    "epsilon_greedy": EpsilonGreedy,
    "age": Age,
    "ensemble": Ensemble,
    "gradient": Gradient,
    "underestimation": Underestimation,
    "plug_ts": PlugTS,
    "guideboot": GuideBoot,
    "online_guideboot": OnlineGuideBoot,
    "bootstrap": VanillaBootstrap,
    "online_bootstrap": OnlineBootstrap,
    "giro": Giro,
    "multi_head": MultiHead,
    "mc_dropout": McDropout,
    "deep_ucb1": DeepUcb1,
    "deep_ts_beta": DeepTsBeta,
    "count_ucb": CountUcb,
    "item_laplace": ItemLaplace,
    "item_posterior": ItemPosterior,
    "gaussian_process": GaussianProcess,
    "density": Density,
    "ts_blr": TsBlr,
    "glm_ucb": GlmUcb,
}


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A method as it is served.

    Args:
        name: what requests, logs and metrics call it.
        method: key of METHODS.
        exploration: the method itself.
        lambda_: exploration strength; where there is a budget, the strength to start from.
        budget: target share of shown slots that exploration changes; None keeps lambda as given.
        propensity_samples: draws of a Monte Carlo propensity; 0 for none.
    """

    name: str
    method: str
    exploration: Exploration
    lambda_: float = INITIAL_LAMBDA
    budget: float | None = None
    propensity_samples: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Of the method, all of them, as they are written to a version."""
        return asdict(cast(Any, self.exploration))

    @property
    def uniform_share(self) -> float | None:
        return cast(float | None, getattr(self.exploration, "uniform_share", None))

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """What the learner must learn for it."""
        return cast(tuple[Belief, ...], getattr(self.exploration, "beliefs", ()))


def beliefs(strategies: Iterable[Strategy]) -> tuple[Belief, ...]:
    """Of all strategies of one lane, each once.

    Raises:
        ValueError: two strategies would share a belief, but have it learned with other options.
    """
    found: dict[str, tuple[Belief, str]] = {}
    for strategy in strategies:
        for belief in strategy.beliefs:
            known, user = found.setdefault(belief.name, (belief, strategy.name))
            if known != belief:
                raise ValueError(
                    f"strategies {user!r} and {strategy.name!r} share {belief.name!r}, but want it learned as {known} "
                    f"and as {belief}: make their options agree, or give one of them a lane of its own"
                )
    return tuple(belief for belief, _ in found.values())


def build(name: str, options: Mapping[str, Any]) -> Strategy:
    """A strategy from its configuration: `method`, `lambda`, `budget`, `propensity_samples`, and the method's options.

    Raises:
        ValueError: an unknown method or option, or a value out of range; the text names the strategy.
    """
    given = dict(options)
    method = given.pop("method", name)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"strategy {name!r}: unknown method {method!r}; known are {', '.join(sorted(METHODS))}")
    lambda_ = given.pop("lambda", None)
    budget = given.pop("budget", None)
    samples = given.pop("propensity_samples", 0)
    kind = METHODS[method]
    own = [option.name for option in fields(cast(Any, kind))]
    unknown = set(given) - set(own)
    if unknown:
        known = sorted([*own, "lambda", "budget", "propensity_samples"])
        raise ValueError(f"strategy {name!r}: unknown options {sorted(unknown)}; {method} has {known}")
    if budget is not None and not (isinstance(budget, int | float) and 0.0 < budget < 1.0):
        raise ValueError(f"strategy {name!r}: budget must lie in (0, 1), got {budget!r}")
    if lambda_ is not None and not (isinstance(lambda_, int | float) and 0.0 <= lambda_ < math.inf):
        raise ValueError(f"strategy {name!r}: lambda must be finite and not negative, got {lambda_!r}")
    if not isinstance(samples, int) or samples < 0:
        raise ValueError(f"strategy {name!r}: propensity_samples must be a whole number from 0 on, got {samples!r}")
    try:
        exploration: Exploration = msgspec.convert(given, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"strategy {name!r}: {error}") from None
    return Strategy(
        name=name,
        method=method,
        exploration=exploration,
        lambda_=float(getattr(kind, "initial_lambda", INITIAL_LAMBDA) if lambda_ is None else lambda_),
        budget=budget,
        propensity_samples=samples,
    )
