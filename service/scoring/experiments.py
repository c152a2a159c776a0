"""Who gets which strategy where the caller names none. A split is sticky: its buckets stand as long as its salt."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from models.noise import seed_of

BUCKETS = 1_000  # shares are kept to a tenth of a percent


class Everyone:
    """No split: one strategy for all."""

    def __init__(self, strategy: str) -> None:
        self.strategies = [strategy]

    def assign(self, unit: str) -> tuple[None, str]:
        """(no bucket, the strategy)."""
        return None, self.strategies[0]


class Traffic:
    """Buckets, divided among strategies in the order of the configuration.

    Args:
        shares: strategy -> share of the buckets; they sum to 1.
        salt: a new one deals all users anew.
    """

    def __init__(self, shares: Mapping[str, float], *, salt: str) -> None:
        self.strategies = [name for name, share in shares.items() if share > 0]
        self._ends = [round(end * BUCKETS) for end in accumulate(shares[name] for name in self.strategies)]
        self._salt = salt

    def assign(self, unit: str) -> tuple[int, str]:
        """(bucket, strategy) of a user id or, without one, of a request id."""
        bucket = seed_of(f"{self._salt}:{unit}") % BUCKETS
        return bucket, self.strategies[bisect_right(self._ends, bucket)]


Split = Everyone | Traffic
