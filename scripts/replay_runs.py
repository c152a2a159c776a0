"""The runs of `agerank replay`: a strategy under a seed, over a log."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from models.evaluation.driver import Protocol
from models.evaluation.r6b import Event, Tally, events
from models.evaluation.replay import replay
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy, beliefs
from models.spec import FeatureSpec
from scripts.runs import Follow, Row, strategy_settings

#: Ours: small and fast to learn, since a policy keeps only one visit of |A|.
NETWORK = NetworkConfig(hidden=(64, 32))
LEARNING_RATE = 0.003

FOLLOW_EVERY = 1_000  # visits


class Work(NamedTuple):
    """One run."""

    strategy: Strategy
    seed: int
    log: Path
    limit: int | None  # visits
    share: float  # of the file's bytes
    protocol: Protocol

    @property
    def settings(self) -> Row:
        """See `scripts.runs.Run`. A log is known by its name and size."""
        return {
            "log": self.log.name,
            "bytes": self.log.stat().st_size,
            "limit": self.limit,
            "share": self.share,
            "strategy": strategy_settings(self.strategy),
            "seed": self.seed,
            "protocol": asdict(self.protocol),
        }

    def __call__(self, follow: Follow) -> Row:
        spec = FeatureSpec.from_toml(resources.files("scripts").joinpath("specs/r6b.toml").read_text())
        tally = Tally()

        def make(round_: int) -> Learner:
            learned = beliefs([self.strategy])
            network = ClickNetwork(spec, NETWORK)
            return Learner(network, learning_rate=LEARNING_RATE, seed=self.seed + round_, beliefs=learned)

        visits = read_log(self.log, tally, self.limit, self.share, follow)
        result = replay(visits, strategy=self.strategy, make=make, seed=self.seed, protocol=self.protocol)
        met = {"events": tally.events, "unsorted": tally.unsorted, "skipped": dict(tally.skipped)}
        return {**asdict(result), "ctr": result.ctr, "tally": met}


def read_log(
    log: Path, tally: Tally, limit: int | None = None, share: float = 1.0, follow: Follow = lambda share: None
) -> Iterator[Event]:
    """The first `limit` visits of a log, and no more than lie in the first share of its bytes, about."""
    size = log.stat().st_size
    with log.open("rb") as raw, _text(raw, packed=log.suffix == ".gz") as lines:
        for number, event in enumerate(islice(events(lines, tally), limit)):
            if number % FOLLOW_EVERY == 0:
                done = raw.tell() / size
                if done > share:
                    return
                follow(max(done / share, number / limit if limit else 0.0))
            yield event


@contextmanager
def _text(raw: BinaryIO, *, packed: bool) -> Iterator[TextIOWrapper]:
    # What is no ASCII is a broken line, which the parser counts.
    with TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="ascii", errors="replace") as lines:
        yield lines
