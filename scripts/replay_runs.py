"""The runs of `agerank replay`: a strategy under a seed, over a log."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from hashlib import sha256
from importlib import resources
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from models.evaluation import open_bandit, r6b
from models.evaluation.catalogue import Catalogue, learned, read
from models.evaluation.driver import Protocol
from models.evaluation.r6b import Event, Tally
from models.evaluation.replay import replay
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy, beliefs
from models.spec import FeatureSpec, Field, SpecError
from scripts.runs import Follow, Row, strategy_settings

NETWORK = NetworkConfig(hidden=(64, 32))  # ours

FOLLOW_EVERY = 1_000  # visits


class Format(StrEnum):
    """Log formats with uniformly random display."""

    R6B = "r6b"
    OPEN_BANDIT = "open_bandit"


class Log(NamedTuple):
    """What is replayed."""

    path: Path
    format: Format
    limit: int | None = None  # visits
    share: float = 1.0  # of the file's bytes


class Model(NamedTuple):
    """What learns from the log, and what it knows before the log begins."""

    learning_rate: float = 0.003  # ours: small and fast to learn, since a policy keeps only one visit of |A|
    features: Path | None = None  # feature spec; None: users' features and items' ids
    items: Path | None = None  # see `models.evaluation.catalogue`

    @property
    def spec(self) -> FeatureSpec:
        """Raises SpecError."""
        default = resources.files("scripts").joinpath("specs/r6b.toml")
        return FeatureSpec.from_toml((self.features or default).read_text())

    @property
    def users(self) -> Field:
        """Of the spec, what the log says of users. Raises SpecError."""
        for field in self.spec.fields:
            if (field.side, field.name, field.kind) == ("user", "features", "multi_hot"):
                return field
        raise SpecError('the log\'s users need a multi_hot field "features"')

    @property
    def catalogue(self) -> Catalogue:
        """Raises ValueError: something is wrong in a line."""
        if self.items is None:
            return Catalogue({}, ())
        with self.items.open("rb") as lines:
            return read(lines, self.spec)

    @property
    def settings(self) -> Row:
        """What a run depends on: files are known by their content."""
        files = {"features": self.features, "items": self.items}
        return {"learning_rate": self.learning_rate} | {
            name: sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path
        }


class Work(NamedTuple):
    """One run."""

    strategy: Strategy
    seed: int
    log: Log
    protocol: Protocol
    model: Model

    @property
    def settings(self) -> Row:
        """See `scripts.runs.Run`. A log is known by its name and size."""
        return {
            "log": self.log.path.name,
            "bytes": self.log.path.stat().st_size,
            "limit": self.log.limit,
            "share": self.log.share,
            "strategy": strategy_settings(self.strategy),
            "seed": self.seed,
            "protocol": asdict(self.protocol),
            "model": self.model.settings,
        }

    def __call__(self, follow: Follow) -> Row:
        network, rate = ClickNetwork(self.model.spec, NETWORK), self.model.learning_rate
        known, past = self.model.catalogue
        taught = learned(past, network, seed=self.seed) if past else None
        tally = Tally()

        def make(round_: int) -> Learner:
            learner = Learner(
                network, learning_rate=rate, seed=self.seed + 1_000 * round_, beliefs=beliefs([self.strategy])
            )
            if taught:
                learner.restore(taught.weights(), taught.state(), taught.step)
            return learner

        visits = read_log(self.log, tally, follow)
        result = replay(visits, strategy=self.strategy, make=make, seed=self.seed, protocol=self.protocol, known=known)
        met = {"events": tally.events, "unsorted": tally.unsorted, "skipped": dict(tally.skipped)}
        return {**asdict(result), "ctr": result.ctr, "tally": met}


def read_log(log: Log, tally: Tally, follow: Follow = lambda share: None) -> Iterator[Event]:
    """The first `limit` visits of a log, and no more than lie in the first share of its bytes, about.

    Raises:
        ValueError: the file as a whole is not of this format.
    """
    size = log.path.stat().st_size
    with log.path.open("rb") as raw, _text(raw, packed=log.path.suffix == ".gz") as lines:
        for number, event in enumerate(islice(_events(log, lines, tally), log.limit)):
            if number % FOLLOW_EVERY == 0:
                done = raw.tell() / size
                if done > log.share:
                    return
                follow(max(done / log.share, number / log.limit if log.limit else 0.0))
            yield event


def _events(log: Log, lines: TextIOWrapper, tally: Tally) -> Iterator[Event]:
    if log.format is Format.R6B:
        return r6b.events(lines, tally)
    with log.path.with_name("item_context.csv").open(encoding="ascii") as campaign:
        pool = open_bandit.items(campaign)
    return open_bandit.events(lines, tally, pool=pool)


@contextmanager
def _text(raw: BinaryIO, *, packed: bool) -> Iterator[TextIOWrapper]:
    # What is no ASCII is a broken line, which the parser counts.
    with TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="ascii", errors="replace") as lines:
        yield lines
