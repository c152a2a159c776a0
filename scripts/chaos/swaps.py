"""agerank chaos swaps: versions change under load, and no request fails and no answer mixes two of them."""

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import redis
import typer

from models.networks.click import NetworkConfig
from scripts.bench.exact import STRATEGY, Exact, decode
from scripts.bench.load import Outcome, post, send_all
from scripts.bench.processes import Server, cores, pinned, read
from scripts.bench.report import ENGINE, EngineKind, failing
from scripts.bench.scorer import RANK, checkpoints, log_server, scorer
from scripts.bench.work import LANE, SMALL, Catalogue, Model, Versions, publishing
from scripts.chaos.report import Advance, AsJson, ChaosError, Found, Seed, bar, show
from service.appends import append_batch
from service.checkpoints import LocalStore, Manifest
from service.connections import connect
from service.events import Announcement, encode
from service.scoring.engines import Kind
from service.streams import StreamNames

NETWORK = NetworkConfig(hidden=(32, 16, 8), gate_hidden=8)
BODIES = 20  # different requests, in a circle
ROUND = 50  # swaps, after which every answer is computed again
PATIENCE_S = 20.0  # for the scorer to take a version
POLL_S = 0.002
CURRENT = "/v1/models/current"

TITLES = {
    "swaps": "swaps",
    "versions": "versions that answered",
    "answers": "answers",
    "failed": "failed",
    "failures": "because",
    "torn": "torn",
    "swap_ms": "ms from its announcement until it serves, median",
    "rate": "requests/s",
    "seconds": "seconds",
}


def swaps(
    swaps: Annotated[int, typer.Option(min=1, help="How often the version changes.")] = 1_000,
    connections: Annotated[int, typer.Option(min=1, help="Of the load, each with a request under way.")] = 4,
    candidates: Annotated[int, typer.Option(min=1, max=1_000, help="Of a request.")] = 20,
    engine: EngineKind = ENGINE,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Change the version over and over under load, and compute every answer again from the version that it names.

    `agerank serve` ranks with age_ts for clients that send the next request as soon as one is answered. Meanwhile the
    trainer's publisher writes one version after the other, each with other weights, and announces it; the next one
    follows when the scorer serves it. The network is small, so that most of the time goes to what is tried here:
    reading, verifying and replacing a version.

    **failed** requests were not answered with 200. **torn** answers have not the items and scores, to the last digits,
    that the version which they name gives to this request, computed from its files: they would be of two versions, or
    of none.

    Exits with 1 if there is any of either. 1,000 swaps take about five minutes.
    """
    with failing(), bar("swaps", swaps) as advance:
        found = run(
            swaps=swaps, connections=connections, candidates=candidates, engine=engine, seed=seed, advance=advance
        )
    show(found, TITLES, title="Versions that change under load", as_json=as_json)
    raise typer.Exit(0 if holds(found) else 1)


def holds(found: Found) -> bool:
    """Whether the promise does."""
    return not found["failed"] and not found["torn"] and found["versions"] > 1


def run(*, swaps: int, connections: int, candidates: int, engine: Kind, seed: int, advance: Advance) -> Found:
    """What TITLES names."""
    started, where = time.monotonic(), cores(None)
    catalogue, generator = Catalogue(seed=seed), np.random.default_rng(seed)
    bodies = [catalogue.body(number, candidates, strategy=STRATEGY) for number in range(BODIES)]
    rounds: list[_Round] = []
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-chaos-")))
        root = checkpoints(folder)
        model = Model(seed, spec=SMALL, config=NETWORK)
        versions = stack.enter_context(publishing(root, model, keep=ROUND + 2))
        last = versions.publish()
        url = stack.enter_context(log_server(folder, where))
        client = stack.enter_context(connect(url, name="agerank-chaos"))
        server = stack.enter_context(scorer(folder, url, where, engine=engine)).wait()
        publish = _Publisher(server, versions, client, generator)
        for done in range(0, swaps, ROUND):
            with publish.swapping(min(ROUND, swaps - done), advance) as going:
                outcome = send_all(server.port, _while(going, bodies), connections=connections)
            exact = Exact(LocalStore(root), [last, *publish.made], bodies, engine)
            last = publish.made[-1]
            rounds.append(_Round(outcome, publish.taken_s, exact.inconsistent(outcome.answers)))
    return _found(swaps, rounds) | {"seconds": time.monotonic() - started}


class _Round(NamedTuple):
    outcome: Outcome
    taken_s: list[float]  # from a version to its being served
    torn: int


def _while(going: Callable[[], bool], bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Requests, in a circle."""
    for request in cycle([post(RANK, body) for body in bodies]):
        if not going():
            return
        yield request


class _Publisher:
    """Publishes the next version as soon as the one before is served."""

    def __init__(self, server: Server, versions: Versions, client: redis.Redis, generator: np.random.Generator) -> None:
        self._server, self._versions, self._client, self._generator = server, versions, client, generator
        self._names = StreamNames("agerank", partitions=1)
        #: Of the last round.
        self.made: list[Manifest] = []
        self.taken_s: list[float] = []

    @contextmanager
    def swapping(self, swaps: int, advance: Advance) -> Iterator[Callable[[], bool]]:
        """So many versions, in a thread; tells whether it goes on."""
        self.made, self.taken_s = [], []
        failures: list[Exception] = []

        def swap() -> None:
            try:
                for _ in range(swaps):
                    self._swap()
                    advance(f"version {self.made[-1].version}")
            except Exception as error:  # of a thread: it is raised by who waits for it
                failures.append(error)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            yield thread.is_alive
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def _swap(self) -> None:
        manifest = self._versions.publish_next(self._generator)
        self.made.append(manifest)
        announced = encode(Announcement(lane=LANE, version=manifest.version))
        append_batch(self._client, [(self._names.models, announced, None)])
        started = time.monotonic()
        while _served(self._server) != manifest.version:
            if time.monotonic() > started + PATIENCE_S:
                raise ChaosError(f"the scorer did not take version {manifest.version} in {PATIENCE_S:g} s")
            time.sleep(POLL_S)
        self.taken_s.append(time.monotonic() - started)


def _served(server: Server) -> int | None:
    status, body = read(server.port, CURRENT)
    return json.loads(body)["version"] if status == 200 else None


def _found(swaps: int, rounds: Sequence[_Round]) -> Found:
    failures = sum((one.outcome.failures for one in rounds), Counter())
    answers = [answer for one in rounds for answer in one.outcome.answers]
    return {
        "swaps": swaps,
        "versions": len({decode(answer).model.version for answer in answers}),
        "answers": len(answers),
        "failed": failures.total(),
        "failures": dict(failures),
        "torn": sum(one.torn for one in rounds),
        "swap_ms": 1e3 * median(taken for one in rounds for taken in one.taken_s),
        "rate": len(answers) / sum(one.outcome.seconds for one in rounds),
    }
