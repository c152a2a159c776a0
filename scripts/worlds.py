"""Worlds by name, and one life of a strategy in one of them."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

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
from models.spec import FeatureSpec
from scripts.runs import Follow, Row, strategy_settings

WORLDS: dict[str, Callable[[int], World]] = {
    "r6b": lambda seed: R6bWorld(seed=seed),
    "r6b_still": lambda seed: R6bWorld(seed=seed, fade=0.0),
    "glm": lambda seed: GlmWorld(seed=seed),
    "ads_a": lambda seed: AdWorld(seed=seed, shape=TENCENT_A),
    "ads_b": lambda seed: AdWorld(seed=seed, shape=TENCENT_B),
}


class Learning(StrEnum):
    """How strategies learn: each example once, or anew from a window after every partition."""

    STREAM = "stream"
    WINDOW = "window"


class Scale(NamedTuple):
    """How a life is led. Ours, chosen so that a table of 13 rows and 5 seeds is done within an hour on two cores."""

    visits: int
    protocol: Protocol
    learning_rate: float = 0.003
    warm_up_pace: float = 1.0


def _stream(visits: int, warm_up: int, update_every: int) -> Scale:
    """Every example is learned once, as the service does."""
    return Scale(visits, Protocol(warm_up=warm_up, update_every=update_every))


def _window(visits: int, window: int, update_every: int, pace: float = 1.0) -> Scale:
    """As in [1], algorithm 5: learned anew after each partition, from a window that begins as a log of random display.

    The learning rate is that of [1]; its window of 80,000 and its batches of 64 are too slow for a table.

    References:
        [1] "Pluggable Deep Thompson Sampling", SDM 2023.
    """
    protocol = Protocol(warm_up=window, update_every=update_every, batch_size=256, window=window)
    return Scale(visits, protocol, learning_rate=0.01, warm_up_pace=pace)


# Of 80,000 entries of R6B's log a strategy keeps one of 38: 2,100.
_R6B = _stream(100_000, 2_000, 200), _window(80_000, 40_000, 2_100, pace=1 / 38)
#: World -> how it is lived in under Learning.STREAM and Learning.WINDOW.
SCALES = {
    "r6b": _R6B,
    "r6b_still": _R6B,
    "glm": (_stream(5_000, 50, 10), _window(5_000, 500, 100)),
    "ads_a": (_stream(20_000, 1_000, 100), _window(20_000, 5_000, 1_000)),
    "ads_b": (_stream(40_000, 1_000, 100), _window(40_000, 10_000, 1_000)),
}
FILE_SCALES = _stream(60_000, 1_000, 100), _window(60_000, 15_000, 1_500)  # of a world from a file

#: Ours, for all worlds alike: small, and fast to learn.
NETWORK = NetworkConfig(hidden=(64, 32), initial_ctr=0.04)


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


def scale_of(name: str, learning: Learning) -> Scale:
    """The default scale of a world. Raises ValueError like `open_world`."""
    if name not in WORLDS:
        load_fit(Path(name))
    stream, window = SCALES.get(name, FILE_SCALES)
    return window if learning is Learning.WINDOW else stream


def check(strategy: Strategy, spec: FeatureSpec) -> None:
    """That a strategy can live in worlds of these features, before it does.

    Raises:
        ValueError: they do not tell what it learns from.
    """
    network = ClickNetwork(spec, NETWORK)
    for belief in strategy.beliefs:
        belief.init(network, torch.Generator())


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


def identity(name: str) -> Row:
    """What tells a world from all others: its name, and of a file's world the digest of its arrays, not of its place.

    Raises ValueError like `open_world`.
    """
    return {"world": name} if name in WORLDS else {"world": Path(name).name, "world_digest": _digest(Path(name))}


@lru_cache(4)
def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for name, array in load_fit(path)._asdict().items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Life(NamedTuple):
    """One run of the closed loop: see `scripts.runs.Run`."""

    world: str
    strategy: Strategy
    seed: int
    scale: Scale

    @property
    def settings(self) -> Row:
        return {
            **identity(self.world),
            "strategy": strategy_settings(self.strategy),
            "seed": self.seed,
            **self.scale._asdict(),
            "protocol": asdict(self.scale.protocol),
        }

    def __call__(self, follow: Follow) -> Row:
        world = open_world(self.world, self.seed)
        learned = beliefs([self.strategy])

        def make(round_: int) -> Learner:
            network = ClickNetwork(world.spec, NETWORK)
            seed = self.seed + 1_000 * round_  # no other life begins with these weights
            return Learner(network, learning_rate=self.scale.learning_rate, seed=seed, beliefs=learned)

        found = run(
            world,
            strategy=self.strategy,
            make=make,
            seed=self.seed,
            visits=self.scale.visits,
            protocol=self.scale.protocol,
            warm_up_pace=self.scale.warm_up_pace,
            follow=follow,
        )
        return found.row()
