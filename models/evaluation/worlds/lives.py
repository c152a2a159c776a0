"""Items that are born one after the other and die: the pool of every world that changes."""

import numpy as np

from models.types import Array

BLOCK = 256  # items born at a time


class Lives:
    """When each item is there. One is born every lifetime_s / pool seconds and lives 0.5 to 1.5 lifetimes.

    Births start 1.5 lifetimes early, the longest life, so that the first visit meets a full pool of all ages. Each
    block of items has its own generator, so no item depends on when it is asked for.

    Args:
        seed: of the world.
        pool: mean number of items that are there.
        lifetime_s: mean life.
    """

    def __init__(self, seed: int, *, pool: int, lifetime_s: float) -> None:
        self._seed = seed
        self._longest_s = 1.5 * lifetime_s
        self._mean_s = lifetime_s
        self._interval_s = lifetime_s / pool
        self._death_s = np.empty(0)  # (N,) world time

    def needed(self, time_s: float) -> int:
        """How many items must have been born, in whole blocks, for the pool of this time."""
        return BLOCK * (1 + int((time_s + self._longest_s) / self._interval_s) // BLOCK)

    def present(self, time_s: Array) -> tuple[Array, int]:
        """((V, n) bool which of n items are there at each of V ascending times, number of the first of them)."""
        first = int(time_s[0] / self._interval_s)
        last = int((time_s[-1] + self._longest_s) / self._interval_s)
        self._know(last + 1)
        number = np.arange(first, last + 1)
        born = self._birth_s(number) <= time_s[:, None]
        return born & (self._death_s[first : last + 1] > time_s[:, None]), first

    def age(self, time_s: Array, first: int, count: int) -> Array:
        """(V, count) mean lives since the births of items from number `first` on, at each of V times."""
        return np.asarray((time_s[:, None] - self._birth_s(np.arange(first, first + count))) / self._mean_s)

    def _birth_s(self, number: Array) -> Array:
        """(N,) world time."""
        return np.asarray(number * self._interval_s - self._longest_s)

    def _know(self, count: int) -> None:
        while len(self._death_s) < count:
            first = len(self._death_s)
            life = np.random.default_rng([self._seed, 2, first]).uniform(0.5, 1.5, BLOCK) * self._mean_s
            birth_s = self._birth_s(np.arange(first, first + BLOCK))
            self._death_s = np.concatenate([self._death_s, birth_s + life])
