"""Worlds by name, and one life of a strategy in one of them."""

import zipfile
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.evaluation.driver import Protocol
from models.evaluation.loop import run
from models.evaluation.worlds.ads import TENCENT_A, TENCENT_B, AdWorld
from models.evaluation.worlds.fitted import Fit, FittedWorld
from models.evaluation.worlds.glm import GlmWorld
from models.evaluation.worlds.r6b import R6bWorld
from models.evaluation.worlds.world import World
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy, beliefs
from scripts.runs import Follow, Row, strategy_settings

WORLDS: dict[str, Callable[[int], World]] = {
    "r6b": lambda seed: R6bWorld(seed=seed),
    "glm": lambda seed: GlmWorld(seed=seed),
    "ads_a": lambda seed: AdWorld(seed=seed, shape=TENCENT_A),
    "ads_b": lambda seed: AdWorld(seed=seed, shape=TENCENT_B),
}


class Scale(NamedTuple):
    """How large a life is, by default: ours, chosen so that a table of 13 rows and 5 seeds is done within an hour."""

    visits: int
    warm_up: int
    update_every: int


SCALES = {
    "r6b": Scale(100_000, 2_000, 200),
    "glm": Scale(5_000, 50, 10),
    "ads_a": Scale(20_000, 1_000, 100),
    "ads_b": Scale(40_000, 1_000, 100),
}
FILE_SCALE = Scale(60_000, 1_000, 100)  # of a world from a file

#: Ours, for all worlds alike: small, and fast to learn.
NETWORK = NetworkConfig(hidden=(64, 32), initial_ctr=0.04)
LEARNING_RATE = 0.003


def open_world(name: str, seed: int) -> World:
    """A fresh world.

    Args:
        name: key of WORLDS, or the path of a file that `agerank world` wrote.
        seed: of the world.

    Raises:
        ValueError: there is no such world, or its file is not one.
    """
    if name in WORLDS:
        return WORLDS[name](seed)
    return FittedWorld(load_fit(Path(name)), seed=seed)


def scale_of(name: str) -> Scale:
    """The default scale of a world. Raises ValueError like `open_world`."""
    if name not in WORLDS:
        load_fit(Path(name))
    return SCALES.get(name, FILE_SCALE)


def save_fit(fit: Fit, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **fit._asdict())


@lru_cache(4)
def load_fit(path: Path) -> Fit:
    """Raises ValueError: there is no such file, or it is not one of ours."""
    if not path.is_file():
        raise ValueError(f"no world {str(path)!r}: known are {', '.join(WORLDS)}, and files of `agerank world`")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fit = Fit(**{name: arrays[name] for name in Fit._fields})
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of `agerank world`: {error}") from None
    fit.check()
    return fit


class Life(NamedTuple):
    """One run of the closed loop: see `scripts.runs.Run`."""

    world: str
    strategy: Strategy
    seed: int
    visits: int
    protocol: Protocol

    @property
    def settings(self) -> Row:
        return {
            "world": Path(self.world).name,
            "strategy": strategy_settings(self.strategy),
            "seed": self.seed,
            "visits": self.visits,
            "protocol": asdict(self.protocol),
        }

    def __call__(self, follow: Follow) -> Row:
        world = open_world(self.world, self.seed)
        learned = beliefs([self.strategy])

        def make(round_: int) -> Learner:
            network = ClickNetwork(world.spec, NETWORK)
            seed = self.seed + 1_000 * round_  # no other life begins with these weights
            return Learner(network, learning_rate=LEARNING_RATE, seed=seed, beliefs=learned)

        found = run(
            world,
            strategy=self.strategy,
            make=make,
            seed=self.seed,
            visits=self.visits,
            protocol=self.protocol,
            follow=follow,
        )
        return found.row()
