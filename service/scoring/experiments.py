"""The traffic split: who gets which strategy. Sticky: a user stays in a bucket as long as the salt stands."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from models.noise import seed_of

BUCKETS = 1_000  # shares are kept to a tenth of a percent


class Traffic:
    """Buckets, divided among strategies in the order of the configuration.

    Args:
        shares: strategy -> share of the buckets; they sum to 1, or there are none and nothing is split.
        salt: a new one deals all users anew.
    """

    def __init__(self, shares: Mapping[str, float], *, salt: str) -> None:
        self.strategies = [name for name, share in shares.items() if share > 0]
        self._ends = [round(end * BUCKETS) for end in accumulate(shares[name] for name in self.strategies)]
        self._salt = salt

    def assign(self, unit: str) -> tuple[int, str] | None:
        """(bucket, strategy) of a user id or, without one, of a request id. None where nothing is split."""
        if not self.strategies:
            return None
        bucket = seed_of(f"{self._salt}:{unit}") % BUCKETS
        return bucket, self.strategies[bisect_right(self._ends, bucket)]
