"""agerank bench swap: what callers notice while the version changes every second."""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from scripts.bench.exact import STRATEGY, Exact, decode
from scripts.bench.load import Outcome, closed_loop, open_loop, post
from scripts.bench.measure import Tell, ratio
from scripts.bench.processes import Cores, Server, cores, pinned
from scripts.bench.report import ENGINE, AsJson, BenchError, Column, EngineKind, Row, Runs, failing, progress, show
from scripts.bench.scorer import RANK, checkpoints, log_server, scorer
from scripts.bench.work import Catalogue, Model, publishing
from service.checkpoints import LocalStore, Manifest, Store, set_current
from service.scoring.engines import Kind

CONNECTIONS = 8
VERSIONS = 4  # that take turns
BODIES = 20  # different requests, in a circle
LOOPS, PHASES = ("closed", "open"), ("steady", "swapping")
SETTLE_S = 1.0  # in which the last version of a phase is loaded

COLUMNS = (
    Column("loop", "loop"),
    Column("phase", "phase"),
    Column("rate", "requests/s", ".0f"),
    Column("p50_ms", "p50 ms", ".2f"),
    Column("p99_ms", "p99 ms", ".2f"),
    Column("over_steady", "p99 over steady", ".2f"),
    Column("swaps", "swaps", "d"),
    Column("answers", "answers", "d"),
    Column("failed", "failed", "d"),
    Column("inconsistent", "inconsistent", "d"),
)


def swap(
    candidates: Annotated[int, typer.Option(min=1, help="Of a request.")] = 100,
    runs: Runs = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one phase.")] = 5.0,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds from one version to the next.")] = 1.0,
    load: Annotated[int, typer.Option(min=1, max=100, help="Of the open loop, in percent of the closed one.")] = 50,
    core: Annotated[int | None, typer.Option(min=0, help="The server's core.", show_default="the last")] = None,
    engine: EngineKind = ENGINE,
    as_json: AsJson = False,
) -> None:
    """Measure latency while a new version is swapped in every second, and hold every answer to its version.

    `agerank serve` ranks with age_ts on one core. In each run a **steady** and a **swapping** phase take turns, in a
    closed loop of 8 connections and in an open one, which sends at the times of a Poisson process and measures from the
    time a request should have left. The versions are written beforehand by the trainer's publisher, so that none trains
    on the client's core; in the swapping phases another one becomes the current version every second, and the server
    finds, verifies and loads it as ever.

    **p99 over steady** is the median over the runs of the ratio to the steady phase of the same run. **failed** counts
    requests that were not answered 200, **inconsistent** answers whose items or scores are not those of the version
    that they name, computed again from its checkpoint. Exits with 1 if there is any of either.
    """
    with failing(), progress(as_json=as_json, versions=("onnxruntime", "fastapi", "uvicorn")) as tell:
        found = run(
            candidates=candidates,
            runs=runs,
            seconds=seconds,
            every=every,
            share=load / 100,
            where=cores(core),
            engine=engine,
            tell=tell,
        )
    title = f"A version every {every:g} s, {candidates} candidates, one core for the server, median of {runs} runs"
    show(found, COLUMNS, title=title, as_json=as_json)
    raise typer.Exit(1 if any(row["failed"] or row["inconsistent"] for row in found) else 0)


def run(
    *,
    candidates: int,
    runs: int,
    seconds: float,
    every: float,
    share: float,
    where: Cores,
    engine: Kind,
    tell: Tell,
) -> list[Row]:
    """A row for each loop and phase; docs/benchmarks.md explains the keys."""
    catalogue = Catalogue()
    bodies = [catalogue.body(number, candidates, strategy=STRATEGY) for number in range(BODIES)]
    requests = [post(RANK, body) for body in bodies]
    phases: dict[tuple[str, str], list[_Phase]] = {(loop, phase): [] for loop in LOOPS for phase in PHASES}
    with ExitStack() as stack:
        stack.enter_context(pinned(where.others))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        root = checkpoints(folder)
        store = LocalStore(root)
        tell("writing the versions")
        with publishing(root, Model(), keep=VERSIONS) as versions:
            generator = np.random.default_rng(0)
            manifests = [versions.publish_next(generator) for _ in range(VERSIONS)]
        url = stack.enter_context(log_server(folder, where))
        server = stack.enter_context(scorer(folder, url, where, engine=engine)).wait()
        warm = closed_loop(server.port, requests, connections=CONNECTIONS, seconds=min(seconds, 1.0))
        if warm.failures:
            raise BenchError(f"{server.name} failed: {dict(warm.failures)}")
        turns = cycle(manifests)  # the last of them is the current one
        for number in range(1, runs + 1):
            for loop, phase in list(phases)[:: 1 if number % 2 else -1]:  # neither is always the first
                tell(f"run {number} of {runs}: {loop} loop, {phase}")
                with _turning(store, turns, every if phase == "swapping" else None) as swaps:
                    outcome = _load(loop, server, requests, share * warm.rate, seconds, seed=number)
                for failure, times in outcome.failures.items():
                    tell(f"failed {times} times: {failure}")
                phases[loop, phase].append(_Phase(outcome, len(swaps)))
        tell("computing every answer again")
        _check_swapped(phases)
        exact = Exact(store, manifests, bodies, engine)
        return [_row(loop, phase, found, phases[loop, "steady"], exact) for (loop, phase), found in phases.items()]


class _Phase(NamedTuple):
    outcome: Outcome
    swaps: int


@contextmanager
def _turning(store: Store, turns: Iterator[Manifest], every: float | None) -> Iterator[list[int]]:
    """Makes the next version the current one every so many seconds; those that became it."""
    swapped: list[int] = []
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(every):
            manifest = next(turns)
            set_current(store, manifest)
            swapped.append(manifest.version)

    thread = threading.Thread(target=turn)
    if every is None:
        yield swapped
        return
    thread.start()
    try:
        yield swapped
    finally:
        stop.set()
        thread.join()
        time.sleep(SETTLE_S)


def _load(loop: str, server: Server, requests: Sequence[bytes], rate: float, seconds: float, *, seed: int) -> Outcome:
    if loop == "closed":
        return closed_loop(server.port, requests, connections=CONNECTIONS, seconds=seconds, keep=True)
    generator = np.random.default_rng(seed)  # the same arrivals in both phases
    return open_loop(server.port, requests, rate=rate, seconds=seconds, generator=generator, keep=True)


def _check_swapped(phases: Mapping[tuple[str, str], Sequence[_Phase]]) -> None:
    """Raises BenchError where the server took none of the versions: then nothing was measured."""
    swaps = sum(one.swaps for found in phases.values() for one in found)
    answers = [decode(answer) for found in phases.values() for one in found for answer in one.outcome.answers]
    if swaps and len({one.model.version for one in answers}) < 2:
        raise BenchError(f"all answers are of one version, though {swaps} became the current one")


def _row(loop: str, phase: str, found: Sequence[_Phase], steady: Sequence[_Phase], exact: Exact) -> Row:
    outcomes = [one.outcome for one in found]
    p99 = np.array([one.quantile(0.99) for one in outcomes])
    return {
        "loop": loop,
        "phase": phase,
        "rate": float(np.median([one.rate for one in outcomes])),
        "p50_ms": float(np.median([one.quantile(0.5) for one in outcomes])) * 1e3,
        "p99_ms": float(np.median(p99)) * 1e3,
        "over_steady": ratio(p99, np.array([one.outcome.quantile(0.99) for one in steady])),
        "swaps": sum(one.swaps for one in found),
        "answers": sum(len(one.answers) for one in outcomes),
        "failed": sum(one.failures.total() for one in outcomes),
        "inconsistent": sum(exact.inconsistent(one.answers) for one in outcomes),
    }
